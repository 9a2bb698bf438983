"""One path a row: greedy decoding and sampling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.generation.decoder import Decoder
from unmask.generation.output import GenerationOutput
from unmask.generation.plan import Plan, feed_prompt, nothing_left
from unmask.generation.rules import Rule, apply_rules
from unmask.generation.sampling import Sampler

#: Numbers that `likeliest` compares at once. The published vocabularies are multiples of the first, those of
#: `unmask pretrain` of the second.
_BLOCKS = (128, 64)


@dataclass(frozen=True)
class Step:
    """What one step wrote.

    Attributes:
        rows: (active,) int64: which rows are still being written.
        ids: (active,) int64: their tokens.
        scores: (active,) float32 log-probabilities, where wanted.
    """

    rows: Tensor
    ids: Tensor
    scores: Tensor | None


def walk(decoder: Decoder, plan: Plan) -> Iterator[Step]:
    """Write token after token until every row has ended or the limit is reached.

    Rows that have ended leave the batch. Row r belongs to input r // num_return_sequences.

    Raises:
        UserError: rules that leave a row nothing to write.
    """
    inputs, copies = decoder.rows, plan.settings.num_return_sequences
    logits = feed_prompt(decoder, plan.prompt)
    active = torch.arange(inputs * copies, device=logits.device)
    if copies > 1:
        decoder.select(active // copies)
        logits = logits[active // copies]
    sampler = Sampler(plan.settings, inputs) if plan.settings.do_sample else None
    rules = plan.rules(active.shape[0])
    history = plan.prompt[active // copies] if rules else None
    for step in range(plan.limit):
        allowed = logits
        if history is not None:
            allowed = _ruled(rules, logits, history, active // copies, step)
        ids = likeliest(allowed) if sampler is None else sampler(allowed, active.tolist(), step)
        yield Step(active, ids, _scores(logits, ids) if plan.with_scores else None)
        going = ids != plan.end_id
        if not bool(going.all()):
            kept = going.nonzero().squeeze(1)
            if kept.shape[0] == 0:
                return
            if step + 1 < plan.limit:
                decoder.select(kept)
        else:
            kept = None
        if history is not None:
            history = _follow(rules, history, ids, kept)
        if kept is not None:
            active, ids = active[kept], ids[kept]
        if step + 1 < plan.limit:
            logits = decoder.step(ids)


def decode(decoder: Decoder, plan: Plan) -> GenerationOutput:
    """`walk` to its end.

    Returns:
        Rows of the longest result's length; `token_scores` are zeros where the plan wants none.
    """
    copies = plan.settings.num_return_sequences
    rows, first = decoder.rows * copies, plan.prompt_length
    device = plan.prompt.device
    sequences = torch.full((rows, first + plan.limit), plan.pad_id, device=device)
    sequences[:, :first] = plan.prompt.repeat_interleave(copies, 0)
    scores = torch.zeros(sequences.shape if plan.with_scores else (rows, 0), device=device)
    length = first
    for step in walk(decoder, plan):
        sequences[step.rows, length] = step.ids
        if step.scores is not None:
            scores[step.rows, length] = step.scores
        length += 1
    scores = scores[:, :length]
    return GenerationOutput(sequences[:, :length], scores, scores.sum(1))


def likeliest(logits: Tensor) -> Tensor:
    """`logits.argmax(-1)`, the first of equals, for (rows, vocabulary) → (rows,) int64.

    PyTorch's own goes through a row one number at a time; here whole blocks are compared first.
    """
    rows, vocabulary = logits.shape
    block = next((size for size in _BLOCKS if vocabulary % size == 0), None)
    if block is None or logits.device.type != "cpu" or not logits.is_contiguous():
        return logits.argmax(-1)
    blocks = logits.view(rows, -1, block)
    best = blocks.amax(-1).argmax(-1)
    inside = blocks[torch.arange(rows), best].argmax(-1)
    return best.mul_(block).add_(inside)


def _scores(logits: Tensor, ids: Tensor) -> Tensor:
    chosen = logits.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    return chosen - logits.logsumexp(-1)


def _ruled(rules: list[Rule], logits: Tensor, history: Tensor, inputs: Tensor, step: int) -> Tensor:
    allowed = apply_rules(rules, logits, history)
    stuck = allowed.amax(-1) == float("-inf")
    if bool(stuck.any()):
        raise nothing_left(int(inputs[stuck.nonzero()[0, 0]]), step)
    return allowed


def _follow(rules: list[Rule], history: Tensor, ids: Tensor, kept: Tensor | None) -> Tensor:
    """Tell the rules what was written; the new history of the rows that go on."""
    if kept is None:
        kept = torch.arange(ids.shape[0], device=ids.device)
    for rule in rules:
        rule.follow(kept, ids[kept])
    return torch.cat((history[kept], ids[kept, None]), 1)
