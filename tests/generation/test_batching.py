"""Batches: everything once, of similar length, within the budget."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from unmask.generation.batching import batches_by_length

lengths_of = st.lists(st.integers(0, 40), max_size=60)


@given(lengths_of, st.integers(1, 200), st.integers(0, 10), st.integers(1, 4))
def test_everything_once_within_the_budget(lengths: list[int], budget: int, extra: int, copies: int) -> None:
    batches = list(batches_by_length(lengths, budget, extra=extra, copies=copies))
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    longest = [max(lengths[place] for place in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    for batch, length in zip(batches, longest, strict=True):
        assert len(batch) == 1 or len(batch) * copies * (length + extra) <= budget
    for batch, following in pairwise(batches):
        assert min(lengths[place] for place in batch) >= max(lengths[place] for place in following)
        head = copies * max(1, max(lengths[place] for place in batch) + extra)
        assert (len(batch) + 1) * head > budget, "one more would have fitted"


def test_inputs_of_equal_length_keep_their_order() -> None:
    assert list(batches_by_length([3, 5, 3, 3], 9)) == [[1], [0, 2, 3]]
