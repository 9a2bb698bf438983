"""Greedy decoding's choice."""

from __future__ import annotations

import pytest
import torch

from unmask.generation.search import likeliest


@pytest.mark.parametrize("vocabulary", [7, 64 * 3, 128 * 2, 8128, 32128])
def test_the_likeliest_token_is_the_first_of_equals(vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    # Few values: the largest stands in many places.
    logits = torch.randint(-5, 5, (40, vocabulary), generator=generator).float()
    logits[3] = float("-inf")
    logits[4, : vocabulary - 1] = float("-inf")
    expected = [row.tolist().index(row.max()) for row in logits]
    assert likeliest(logits).tolist() == expected
    assert likeliest(logits[:, :-1]).tolist() == [row.tolist().index(row.max()) for row in logits[:, :-1]]
