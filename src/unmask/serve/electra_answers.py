"""What an ELECTRA answers: embeddings, suspicions, gaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from unmask.electra.answers import Canvas
from unmask.electra.filling import Reading, read_filled, read_text
from unmask.electra.heads import ElectraModel
from unmask.electra.model import ElectraForPreTraining
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.electra.writer import ElectraForConditionalGeneration
from unmask.errors import UserError
from unmask.generation.refinement import Refinement
from unmask.nn.ragged import Layout
from unmask.serve.jobs import Pause
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


def alternatives(pair: ElectraForConditionalGeneration, items: Sequence[Gaps]) -> list[dict[str, Any]]:
    """The gaps of each text written with one token each, and what else might stand there."""
    return [_alternatives(pair, text, count) for text, _, _, count in items]


def _alternatives(pair: ElectraForConditionalGeneration, text: str, count: int) -> dict[str, Any]:
    _check_gaps(pair.tokenizer, text)
    # Gaps that touch are several.
    reading = read_text(pair, pair.tokenizer, text.replace(GAP, f" {GAP} "), proposals=count)
    named = [
        [{"token": token, "probability": share} for token, share in proposals]
        for proposals in reading.proposals.values()
    ]
    return _read({"gaps": [some[0]["token"] for some in named], "alternatives": named}, reading)


def fill(pair: ElectraForConditionalGeneration, pause: Pause, item: Gaps) -> dict[str, Any]:
    """The gaps of a text written with as many tokens as read best; pauses before each pass of the generator."""
    text, at_least, at_most, _ = item
    _check_gaps(pair.tokenizer, text)
    reading, words = read_filled(pair, text, at_least=at_least, at_most=at_most, watch=lambda *_: pause())
    return _read({"gaps": words}, reading)


def _check_gaps(tokenizer: ElectraTokenizer, text: str) -> None:
    if GAP not in text:
        raise UserError(f"the text has no gap: mark one with {GAP}")
    if tokenizer.mask_token in text:
        raise UserError(f"the text holds {tokenizer.mask_token}: mark gaps with {GAP}")


def _read(answer: dict[str, Any], reading: Reading) -> dict[str, Any]:
    judged = {} if reading.suspicion is None else {"suspicion": reading.suspicion}
    return answer | {"tokens": reading.tokens} | judged


def write_rounds(pair: ElectraForConditionalGeneration, pause: Pause, item: RoundsOf) -> str:
    """The text of a row continued; pauses before each pass of the generator, and once behind the last.

    What is told is the row as it stands then: its tokens, the open places, and whether these were written before and
    sent back.
    """
    row, new, plan = item
    tokenizer, device = pair.tokenizer, pair.device

    def tell(ids: torch.Tensor, at: torch.Tensor, again: bool) -> None:
        # Places count without the [CLS] in front.
        tokens = tokens_of(tokenizer, ids.tolist()[1:-1])
        pause({"tokens": tokens, "open": (at - 1).tolist(), "sent_back": again})

    ids = [*row[:-1], *[tokenizer.mask_token_id] * new, row[-1]]
    pair.check_length(len(ids))
    stream = torch.tensor(ids, device=device)
    canvas = Canvas(stream, Layout.of([len(ids)], device), None, [len(row) - 1], [len(ids) - 1])
    written = pair.write(canvas, plan, tell).ids
    tell(written, written[:0], False)
    return tokenizer.decode(written.tolist()[1:-1])
