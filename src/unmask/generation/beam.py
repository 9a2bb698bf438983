"""Beam search, with Transformers' rules for scores and for stopping, each input on its own."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from unmask.generation.decoder import Decoder
from unmask.generation.output import GenerationOutput
from unmask.generation.plan import Plan, feed_prompt, nothing_left
from unmask.generation.rules import apply_rules

#: The score of a hypothesis that is not there.
ABSENT = float("-inf")


@dataclass
class _Hypotheses:
    """Some hypotheses of each input, best first: all (inputs, hypotheses, …).

    Attributes:
        scores: (inputs, h) float32; ABSENT where there is none.
        ids: (inputs, h, length) int64: prompt and what was written.
        token_scores: (inputs, h, length) float32, or length 0 where not wanted.
        lengths: (inputs, h) int64: tokens written.
    """

    scores: Tensor
    lengths: Tensor
    ids: Tensor
    token_scores: Tensor

    def pick(self, places: Tensor) -> _Hypotheses:
        """(inputs, kept) places → those hypotheses, as tensors of their own."""
        return _Hypotheses(
            self.scores.gather(1, places),
            self.lengths.gather(1, places),
            *(
                whole.gather(1, places[:, :, None].expand(-1, -1, whole.shape[2]))
                for whole in (self.ids, self.token_scores)
            ),
        )

    def best(self, count: int, scores: Tensor) -> _Hypotheses:
        """The `count` best by other scores (inputs, h), which become theirs."""
        scores, places = scores.topk(count)
        picked = self.pick(places)
        picked.scores = scores
        return picked

    def beside(self, other: _Hypotheses) -> _Hypotheses:
        return _Hypotheses(
            *(torch.cat((getattr(self, f.name), getattr(other, f.name)), 1) for f in fields(_Hypotheses))
        )

    def inputs(self, rows: Tensor) -> _Hypotheses:
        return _Hypotheses(*(getattr(self, field.name)[rows] for field in fields(_Hypotheses)))


class _Search:
    """The state of the inputs that are still being searched.

    Attributes:
        running: the open beams of each, (inputs, beams).
        ended: the best hypotheses that have ended, (inputs, beams), scores with their length penalty.
        inputs: (inputs,) int64: which input of the batch each is.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.beams = plan.settings.num_beams
        count, length = plan.prompt.shape[0], plan.prompt_length + plan.limit
        device = plan.prompt.device
        ids = torch.full((count, 1, length), plan.pad_id, device=device)
        ids[:, 0, : plan.prompt_length] = plan.prompt
        token_scores = torch.zeros((count, 1, length if plan.with_scores else 0), device=device)
        # One open beam at first: the others would be the same.
        lengths = torch.zeros((count, 1), dtype=torch.int64, device=device)
        self.running = _Hypotheses(torch.zeros((count, 1), device=device), lengths, ids, token_scores)
        self.ended = self.running.pick(torch.zeros((count, self.beams), dtype=torch.int64, device=device))
        self.ended.scores = torch.full((count, self.beams), ABSENT, device=device)
        self.inputs = torch.arange(count, device=device)

    def extend(self, log_probs: Tensor, allowed: Tensor, written: int) -> tuple[Tensor, Tensor]:
        """Put one more token behind the beams.

        Args:
            log_probs: (inputs · open beams, vocabulary) float32, the model's own.
            allowed: the same after the rules.
            written: tokens behind the prompt, before this one.

        Returns:
            The parent of each new beam, a row of `log_probs`, and its token: (inputs · beams,) int64 each.
        """
        count, open_beams = self.running.scores.shape
        vocabulary = log_probs.shape[-1]
        totals = (allowed.view(count, open_beams, -1) + self.running.scores[:, :, None]).flatten(1)
        # Each beam has one way to end, so twice as many candidates as beams leave enough that go on.
        scores, places = totals.topk(min(2 * self.beams, totals.shape[1]))
        parents, tokens = places // vocabulary, places % vocabulary
        candidates = self.running.pick(parents)
        candidates.scores = scores
        candidates.lengths += 1
        position = self.plan.prompt_length + written
        candidates.ids[:, :, position] = tokens
        rows = parents + torch.arange(count, device=parents.device)[:, None] * open_beams
        if self.plan.with_scores:
            candidates.token_scores[:, :, position] = log_probs[rows, tokens]
        ends = tokens == self.plan.end_id if written + 1 < self.plan.limit else torch.ones_like(tokens).bool()
        self._collect(candidates, ends, written + 1)
        going, kept = scores.masked_fill(ends, ABSENT).topk(min(self.beams, scores.shape[1]))
        self.running = candidates.pick(kept)
        self.running.scores = going
        return rows.gather(1, kept).flatten(), tokens.gather(1, kept).flatten()

    def _collect(self, candidates: _Hypotheses, ends: Tensor, length: int) -> None:
        """Take over those that have just ended. The worse half of the candidates only stands by."""
        scores = candidates.scores / length**self.plan.settings.length_penalty
        scores = scores.masked_fill(~ends, ABSENT)
        scores[:, self.beams :] = ABSENT
        merged = self.ended.beside(candidates)
        self.ended = merged.best(self.beams, torch.cat((self.ended.scores, scores), 1))

    def finished(self, written: int) -> Tensor:
        """(inputs,) bool: whose result can no longer change."""
        settings = self.plan.settings
        longest = settings.early_stopping == "never" and settings.length_penalty > 0
        length = self.plan.limit if longest else written
        best_open = self.running.scores[:, 0] / length**settings.length_penalty
        worst = self.ended.scores.amin(1)
        done = ~(best_open > worst)
        if settings.early_stopping is True:
            done |= worst > ABSENT
        return done if written < self.plan.limit else torch.ones_like(done)

    def keep(self, rows: Tensor) -> None:
        """Go on with these inputs alone, (kept,) int64."""
        self.running, self.ended = self.running.inputs(rows), self.ended.inputs(rows)
        self.inputs = self.inputs[rows]


def beam_search(decoder: Decoder, plan: Plan) -> GenerationOutput:
    """The best `num_return_sequences` hypotheses of each input, best first, side by side.

    The search of an input is the one that Transformers makes (`GenerationMixin._beam_search`), but an input
    whose result can no longer change leaves the batch.

    Raises:
        UserError: no hypothesis at all for some input, because rules exclude everything.
    """
    search = _Search(plan)
    found: list[tuple[Tensor, _Hypotheses]] = []
    logits = feed_prompt(decoder, plan.prompt)
    rules = plan.rules(decoder.rows)
    for written in range(plan.limit):
        log_probs = logits.log_softmax(-1)
        allowed = log_probs
        if rules:
            history = search.running.ids[:, :, : plan.prompt_length + written].flatten(0, 1)
            allowed = apply_rules(rules, log_probs, history)
        parents, ids = search.extend(log_probs, allowed, written)
        done = search.finished(written + 1)
        if bool(done.any()):
            leaving = done.nonzero().squeeze(1)
            found.append((search.inputs[leaving], search.ended.inputs(leaving)))
            kept = (~done).nonzero().squeeze(1)
            if kept.shape[0] == 0:
                break
            parents = parents.view(done.shape[0], -1)[kept].flatten()
            ids = ids.view(done.shape[0], -1)[kept].flatten()
            search.keep(kept)
        for rule in rules:
            rule.follow(parents, ids)
        if parents.shape[0] != decoder.rows or not bool((parents.diff() == 1).all()):
            decoder.select(parents)
        logits = decoder.step(ids)
    return _results(found, plan)


def _results(found: list[tuple[Tensor, _Hypotheses]], plan: Plan) -> GenerationOutput:
    """The results of the inputs in their order, as `num_return_sequences` rows each."""
    order = torch.cat([inputs for inputs, _ in found]).argsort()
    together = _Hypotheses(
        *(torch.cat([getattr(part, field.name) for _, part in found])[order] for field in fields(_Hypotheses))
    )
    empty = together.scores[:, 0] == ABSENT
    if bool(empty.any()):
        raise nothing_left(int(empty.nonzero()[0, 0]), 0)
    count = plan.settings.num_return_sequences
    scores = together.scores[:, :count].flatten()
    ids = together.ids[:, :count].flatten(0, 1)
    token_scores = together.token_scores[:, :count].flatten(0, 1)
    absent = scores == ABSENT
    # A place without a hypothesis holds the prompt alone.
    ids[absent, plan.prompt_length :] = plan.pad_id
    token_scores[absent] = 0
    lengths = together.lengths[:, :count].flatten().masked_fill(absent, 0)
    length = plan.prompt_length + int(lengths.max())
    return GenerationOutput(ids[:, :length], token_scores[:, :length], scores)
