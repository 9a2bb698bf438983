"""Streaming: the tokens that generate returns, as they come."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference import padded_batch, trimmed

from unmask.errors import UserError
from unmask.t5.decoding import T5Decoder


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "seed": 4, "num_return_sequences": 2}], ids=str)
def test_streamed_tokens_are_those_of_generate(pair: Any, options: dict[str, Any]) -> None:
    ours, _ = pair(1)
    ids, mask = padded_batch(1)
    output = ours.generate(ids, mask, max_new_tokens=10, return_scores=True, **options)
    rows: list[list[int]] = [[0] for _ in range(output.sequences.shape[0])]
    scores = torch.zeros(len(rows))
    for token in ours.stream(ids, mask, max_new_tokens=10, **options):
        rows[token.row].append(token.id)
        scores[token.row] += token.score
    assert rows == trimmed(output.sequences)
    torch.testing.assert_close(scores, output.sequence_scores)


def test_tokens_come_one_by_one(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first token is there before the second is computed."""
    ours, _ = pair(1)
    ids, mask = padded_batch(1, rows=1)
    steps: list[int] = []
    step = T5Decoder.step
    monkeypatch.setattr(T5Decoder, "step", lambda self, ids: steps.append(1) or step(self, ids))
    stream = ours.stream(ids, mask, max_new_tokens=10, min_new_tokens=10)
    for token in range(1, 4):
        next(stream)
        assert len(steps) == token


@pytest.mark.parametrize("options", [{"num_beams": 4}, {"speculate": True}], ids=str)
def test_what_cannot_stream_says_so_at_once(pair: Any, options: dict[str, Any]) -> None:
    ours, _ = pair(1)
    ids, mask = padded_batch(1)
    with pytest.raises(UserError, match=r"cannot stream.*generate"):
        ours.stream(ids, mask, **options)
