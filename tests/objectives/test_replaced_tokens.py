"""ELECTRA's drawing and masking to the constants of the reference (pretrain/pretrain_helpers.py)."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.errors import UserError
from unmask.objectives.randomness import generator
from unmask.objectives.replaced_tokens import draw_positions, mask, predictions

PAD, CLS, SEP, MASK = 0, 101, 102, 103
SPECIAL = np.array([PAD, CLS, SEP, MASK])


@pytest.mark.parametrize(
    ("lengths", "max_length", "rate", "expected"),
    [
        ([128, 100, 10, 3], 128, 0.15, [19, 15, 2, 1]),  # 1.5 to even
        ([512], 512, 0.15, [77]),  # round(76.8), int(79.36) is not reached
        ([512], 512, 0.25, [128]),
        ([512], 128, 0.15, [19]),  # the recipe's length caps it: int(19.84)
        ([1], 128, 0.15, [1]),
    ],
)
def test_predictions(lengths: list[int], max_length: int, rate: float, expected: list[int]) -> None:
    assert predictions(np.array(lengths), max_length, rate).tolist() == expected


@given(
    rows=st.lists(
        st.lists(st.sampled_from([*SPECIAL.tolist(), 7, 8, 9]), max_size=60), min_size=1, max_size=6
    ),
    rate=st.sampled_from([0.15, 0.25, 0.9]),
    seed=st.integers(0, 2**40),
)
def test_each_row_gives_its_number_of_distinct_ordinary_tokens(
    rows: list[list[int]], rate: float, seed: int
) -> None:
    tokens = np.array([token for row in rows for token in row], np.int32)
    lengths = np.array([len(row) for row in rows])
    rng = generator(seed, "test")
    drawn = draw_positions(tokens, lengths, special_ids=SPECIAL, max_length=64, rate=rate, rng=rng)
    assert drawn.dtype == np.int64
    assert (np.diff(drawn) > 0).all()
    assert not np.isin(tokens[drawn], SPECIAL).any()
    row_of = np.repeat(np.arange(len(rows)), lengths)
    ordinary = np.bincount(row_of[~np.isin(tokens, SPECIAL)], minlength=len(rows))
    expected = np.minimum(predictions(lengths, 64, rate), ordinary)
    assert np.bincount(row_of[drawn], minlength=len(rows)).tolist() == expected.tolist()


def test_all_sets_of_positions_are_equally_likely() -> None:
    # 16 tokens at 0.15 give round(2.4) = 2 of the 5 ordinary ones, in rows of different kinds.
    row = np.array([CLS, 5, 6, 7, 8, 9, SEP, *[PAD] * 9])
    tokens = np.tile(row, 10_000)
    lengths = np.full(10_000, 16)
    drawn = draw_positions(
        tokens, lengths, special_ids=SPECIAL, max_length=128, rng=generator(0, "test")
    ).reshape(-1, 2)
    counts = Counter(map(tuple, (drawn % 16).tolist()))
    assert len(counts) == 10
    assert max(abs(count - 1000) for count in counts.values()) < 150


def test_masking_shows_mask_at_85_percent_and_the_token_elsewhere() -> None:
    tokens = np.arange(200, 40_200, dtype=np.int32)
    drawn = np.arange(0, 40_000, 2)
    masked = mask(tokens, drawn, mask_id=MASK, rng=generator(0, "test"))
    assert masked.dtype == np.int32
    assert set(np.flatnonzero(masked != tokens)) <= set(drawn)
    assert set(masked[masked != tokens]) == {MASK}
    assert abs((masked[drawn] == MASK).mean() - 0.85) < 0.01
    assert tokens[0] == 200


@pytest.mark.parametrize("rate", [0.0, 1.0, float("nan")])
def test_impossible_rate(rate: float) -> None:
    with pytest.raises(UserError, match="mask rate"):
        draw_positions(
            np.array([5]),
            np.array([1]),
            special_ids=SPECIAL,
            max_length=8,
            rate=rate,
            rng=generator(0, "test"),
        )
