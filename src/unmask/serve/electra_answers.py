"""What an ELECTRA answers: embeddings, suspicions, gaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from unmask.electra.answers import Canvas
from unmask.electra.filling import read_text
from unmask.electra.heads import ElectraModel
from unmask.electra.model import ElectraForPreTraining
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.electra.writer import ElectraForConditionalGeneration
from unmask.errors import UserError
from unmask.generation.refinement import Refinement
from unmask.nn.ragged import Layout
from unmask.text.gaps import GAP

#: (ids, new tokens, how to write)
RoundsOf = tuple[list[int], int, Refinement]
#: (text, at_least, at_most, alternatives)
Gaps = tuple[str, int, int, int]


def embed(encoder: ElectraModel, rows: list[list[int]]) -> list[list[float]]:
    """The mean of the encoder's states of each row of ids, at length 1."""
    found: list[list[float]] = encoder.embed(rows).tolist()
    return found


def detect(
    discriminator: ElectraForPreTraining, tokenizer: ElectraTokenizer, rows: list[list[int]]
) -> list[dict[str, Any]]:
    """For each row of ids, [CLS] and [SEP] around it: its tokens, and the probability that each was replaced."""
    layout = Layout.of([len(row) for row in rows], discriminator.device)
    ids = torch.tensor([token for row in rows for token in row], device=discriminator.device)
    shares = discriminator.token_logits(ids, layout).float().sigmoid().split(layout.lengths)
    return [
        {"tokens": tokens_of(tokenizer, row[1:-1]), "suspicion": share[1:-1].tolist()}
        for row, share in zip(rows, shares, strict=True)
    ]


def tokens_of(tokenizer: ElectraTokenizer, ids: Sequence[int]) -> list[str]:
    return [str(token) for token in tokenizer.convert_ids_to_tokens(list(ids))]


def fill(
    pair: ElectraForConditionalGeneration, breathe: Callable[[], None], items: Sequence[Gaps]
) -> list[dict[str, Any]]:
    """The gaps of each text written: one token each with its alternatives, or as many tokens as read best.

    Args:
        breathe: is called between texts.
    """
    found = []
    for number, (text, at_least, at_most, alternatives) in enumerate(items):
        if number:
            breathe()
        _check_gaps(pair.tokenizer, text)
        one = at_least == at_most == 1
        found.append(_named(pair, text, alternatives) if one else _written(pair, text, at_least, at_most))
    return found


def _check_gaps(tokenizer: ElectraTokenizer, text: str) -> None:
    if GAP not in text:
        raise UserError(f"the text has no gap: mark one with {GAP}")
    if tokenizer.mask_token in text:
        raise UserError(f"the text holds {tokenizer.mask_token}: mark gaps with {GAP}")


def _named(pair: ElectraForConditionalGeneration, text: str, alternatives: int) -> dict[str, Any]:
    # Gaps that touch are several.
    reading = read_text(pair, pair.tokenizer, text.replace(GAP, f" {GAP} "), proposals=alternatives)
    named = [
        [{"token": token, "probability": share} for token, share in proposals]
        for proposals in reading.proposals.values()
    ]
    return {"gaps": [some[0]["token"] for some in named], "alternatives": named, "tokens": reading.tokens} | (
        {} if reading.suspicion is None else {"suspicion": reading.suspicion}
    )


def _written(pair: ElectraForConditionalGeneration, text: str, at_least: int, at_most: int) -> dict[str, Any]:
    tokenizer = pair.tokenizer
    ids = tokenizer.encode(text.replace(GAP, f" {tokenizer.mask_token} "))
    filled = pair.fill([ids], at_least=at_least, at_most=at_most)[0]
    answer: dict[str, Any] = {
        "gaps": [tokenizer.decode(filled.ids[start:stop]) for start, stop in filled.gaps],
        "tokens": tokens_of(tokenizer, filled.ids[1:-1]),
    }
    if pair.discriminator is not None:
        answer |= detect(pair.discriminator, tokenizer, [filled.ids])[0]
    return answer


def write_rounds(
    pair: ElectraForConditionalGeneration, breathe: Callable[[], None], items: Sequence[RoundsOf]
) -> list[dict[str, Any]]:
    """Texts continued, with what they were before each pass of the generator: tokens, the open places, and whether
    these were sent back.

    Args:
        breathe: is called before each pass.
    """
    return [_rounds(pair, breathe, *item) for item in items]


def _rounds(
    pair: ElectraForConditionalGeneration,
    breathe: Callable[[], None],
    row: list[int],
    new: int,
    plan: Refinement,
) -> dict[str, Any]:
    tokenizer, passes = pair.tokenizer, list[dict[str, Any]]()

    def watch(ids: torch.Tensor, at: torch.Tensor) -> None:
        breathe()
        # Places count without the [CLS] in front.
        passes.append({"tokens": tokens_of(tokenizer, ids.tolist()[1:-1]), "open": (at - 1).tolist()})

    ids = [*row[:-1], *[tokenizer.mask_token_id] * new, row[-1]]
    pair.check_length(len(ids))
    device = pair.device
    canvas = Canvas(
        torch.tensor(ids, device=device), Layout.of([len(ids)], device), None, [len(row) - 1], [len(ids) - 1]
    )
    written = pair.write(canvas, plan, watch).ids.tolist()
    for number, one in enumerate(passes):
        # What is open was written before and sent back, or has not been kept yet.
        judged = plan.judged and number > 0
        one["sent_back"] = judged or number >= len(passes) - plan.revisions
    passes.append({"tokens": tokens_of(tokenizer, written[1:-1]), "open": [], "sent_back": False})
    return {"rounds": passes, "text": tokenizer.decode(written[1:-1])}
