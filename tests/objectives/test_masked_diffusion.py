"""Masked diffusion's noise: every level equally often, weights one over the level, an unbiased bound."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.objectives.masked_diffusion import draw_noise
from unmask.objectives.randomness import generator


@given(
    rows=st.lists(st.lists(st.booleans(), max_size=20), min_size=1, max_size=8), seed=st.integers(0, 2**40)
)
def test_every_row_has_its_level(rows: list[list[bool]], seed: int) -> None:
    noisable = np.array([one for row in rows for one in row], bool)
    lengths = np.array([len(row) for row in rows])
    drawn, weights = draw_noise(noisable, lengths, rng=generator(seed, "test"))
    assert (np.diff(drawn) > 0).all()
    assert noisable[drawn].all()
    ends = np.cumsum(lengths)
    for row, end in zip(rows, ends, strict=True):
        mine = (drawn >= end - len(row)) & (drawn < end)
        assert bool(mine.any()) == any(row)
        assert weights[mine].tolist() == pytest.approx([sum(row) / max(mine.sum(), 1)] * int(mine.sum()))


def test_levels_and_places_are_uniform() -> None:
    """Of one row of 4 among others: each number of masks a quarter of the time, each place equally often."""
    noisable = np.array([False, True, True, False, True, True] + [True] * 3)
    counts, places = np.zeros(5), np.zeros(9)
    draws = 8000
    for number in range(draws):
        drawn, _ = draw_noise(noisable, np.array([6, 3]), rng=generator(0, "test", number))
        counts[(drawn < 6).sum()] += 1
        places[drawn] += 1
    assert counts[0] == 0
    assert counts[1:] / draws == pytest.approx([0.25] * 4, abs=0.02)
    assert places[[1, 2, 4, 5]] / draws == pytest.approx([0.625] * 4, abs=0.02)
    assert (places[[0, 3]] == 0).all()


def test_levels_are_spread_over_a_batch() -> None:
    lengths = np.full(10, 100)
    for number in range(5):
        drawn, _ = draw_noise(np.ones(1000, bool), lengths, rng=generator(0, "test", number))
        shares = np.sort(np.bincount(drawn // 100, minlength=10))
        assert (shares // 10 == np.arange(10)).all() or (np.diff(shares) == 10).all()


def test_the_bound_is_that_of_independent_masks() -> None:
    """E over t ~ U(0, 1) of (1 / t) Σ masked losses, integrated term by term, for losses that depend on the mask.

    With l of n places masked, ∫ t^(l-1) (1 - t)^(n-l) dt = (l-1)! (n-l)! / n!.
    """
    n = 4

    def loss(masked: tuple[int, ...]) -> float:
        return sum(math.sin(3 * place + sum(masked)) + 2 for place in masked)

    exact = sum(
        math.factorial(size - 1) * math.factorial(n - size) / math.factorial(n) * loss(masked)
        for size in range(1, n + 1)
        for masked in combinations(range(n), size)
    )
    draws = 20_000
    found = 0.0
    for number in range(draws):
        drawn, weights = draw_noise(np.ones(n, bool), np.array([n]), rng=generator(0, "test", number))
        found += float(weights[0]) * loss(tuple(drawn.tolist())) / draws
    assert found == pytest.approx(exact, rel=0.01)
