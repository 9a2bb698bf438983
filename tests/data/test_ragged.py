"""Ragged batches."""

from __future__ import annotations

import numpy as np
import pytest

from unmask.data.ragged import Batch, Rows, joined, ranges, rank_parts, rank_rows, take_rows


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


BATCH: Batch = {
    "tokens": np.arange(10, 20),
    "masked": np.arange(20, 30),
    "lengths": np.array([3, 1, 4, 2], np.int32),
    "labels": np.array([7, 8, 9, 6]),
    "drawn": np.array([0, 2, 3, 5, 9]),
    "weights": np.array([0.5, 1.5, 2.5, 3.5, 4.5], np.float32),
}


def test_rows_of_a_batch_with_the_places_drawn_in_them() -> None:
    taken = take_rows(BATCH, np.array([3, 0, 2]))
    assert {name: values.tolist() for name, values in taken.items()} == {
        "tokens": [18, 19, 10, 11, 12, 14, 15, 16, 17],
        "masked": [28, 29, 20, 21, 22, 24, 25, 26, 27],
        "lengths": [2, 3, 4],
        "labels": [6, 7, 9],
        "drawn": [1, 2, 4, 6],
        "weights": [4.5, 0.5, 1.5, 3.5],
    }
    assert all(taken[name].dtype == values.dtype for name, values in BATCH.items())


def test_rows_of_pairs_have_two_lengths() -> None:
    pairs = {
        "inputs": np.arange(3),
        "input_lengths": np.array([1, 2]),
        "targets": np.arange(5),
        "target_lengths": np.array([4, 1]),
    }
    taken = take_rows(pairs, np.array([1]))
    assert [taken["inputs"].tolist(), taken["targets"].tolist()] == [[1, 2], [4]]


def test_ranks_share_a_batch() -> None:
    assert [rank_rows(BATCH, rank, 2)["lengths"].tolist() for rank in range(2)] == [[3, 4], [1, 2]]
    assert [len(rank_rows(BATCH, rank, 6)["tokens"]) for rank in range(6)] == [3, 1, 4, 2, 0, 0]
    with pytest.raises(ValueError, match="rank 2 of 2"):
        rank_rows(BATCH, 2, 2)


def test_ranks_make_a_batch_in_passes() -> None:
    """Every row once, whatever the ranks and passes; all ranks have as many passes as the others."""
    for ranks, parts in ((1, 1), (1, 3), (2, 2), (3, 1), (2, 9), (7, 1)):
        passes = [rank_parts(BATCH, rank, ranks, parts) for rank in range(ranks)]
        assert len({len(own) for own in passes}) == 1
        if ranks * parts == 1:
            assert passes == [[(BATCH, True)]]
            continue
        rows = [int(row) for own in passes for share, counts in own if counts for row in share["rows"]]
        assert sorted(rows) == list(range(len(BATCH["lengths"])))
        assert all(len(share["rows"]) for own in passes for share, _ in own)
        for own in passes:
            for share, _ in own:
                assert share["lengths"].tolist() == BATCH["lengths"][share["rows"]].tolist()
