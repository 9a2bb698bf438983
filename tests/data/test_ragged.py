"""Ragged batches."""

from __future__ import annotations

import numpy as np

from unmask.data.ragged import Rows, joined, ranges


def test_ranges() -> None:
    assert ranges(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
    assert ranges(np.array([], np.int64), np.array([], np.int64)).tolist() == []


def test_rows_are_taken_in_the_order_asked_for() -> None:
    rows = Rows([[1, 2, 3], [], [4]])
    stream, lengths = rows.take(np.array([2, 0, 1, 0]))
    assert stream.tolist() == [4, 1, 2, 3, 1, 2, 3]
    assert lengths.tolist() == [1, 3, 0, 3]
    assert stream.dtype == lengths.dtype == np.int32


def test_joined_batches_hold_all_rows() -> None:
    one = {"tokens": np.array([1, 2]), "lengths": np.array([2])}
    two = {"tokens": np.array([3]), "lengths": np.array([1])}
    both = joined([one, two])
    assert {name: values.tolist() for name, values in both.items()} == {
        "tokens": [1, 2, 3],
        "lengths": [2, 1],
    }
