"""Ragged batches: rows of different lengths one after another in a flat array, never padded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

Batch = dict[str, np.ndarray]
"""Streams (total,) and their lengths (batch,) by name; see `data.pretraining` and `data.finetuning`."""

_ONE_A_ROW = {"labels", "kinds", "rows"}
#: What holds, or goes with, sorted places in the stream "tokens": whose places.
_PLACES = {"drawn": "drawn", "weights": "drawn", "answers": "answers"}


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The integers start, start + 1, … of each range, one range after another: (sum of lengths,) int64."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)


def permuted(count: int, rng: np.random.Generator) -> np.ndarray:
    """0 … count - 1 in a random order, (count,), of `number_type`."""
    return rng.permutation(np.arange(count, dtype=number_type(count)))


def number_type(count: int) -> type[np.signedinteger[Any]]:
    """The smaller one of int32 and int64 that holds 0 … count - 1: tables of an epoch are long."""
    return np.int32 if count < 1 << 31 else np.int64


def joined(batches: Sequence[Batch]) -> Batch:
    """One batch of all rows of several that have the same keys."""
    if len(batches) == 1:
        return batches[0]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def take_rows(batch: Batch, rows: np.ndarray) -> Batch:
    """The batch of some rows of another, in the order given.

    Places in a stream ("drawn", "answers", sorted) are those in the new one; "weights" go with "drawn".
    """
    return {name: _take(batch, name, rows) for name in batch}


def rank_rows(batch: Batch, rank: int, ranks: int) -> Batch:
    """A rank's share of a global batch: rows rank, rank + ranks, …, so that shares differ little in length.

    Together the ranks have every row once, and "rows" says which: (rows of the share,) int64, their numbers in the
    global batch. A share has no row where there are fewer rows than ranks: such a rank has to take part in the step
    with a loss of 0. Losses are to be normalised by the counts of the global batch.
    """
    if not 0 <= rank < ranks:
        raise ValueError(f"rank {rank} of {ranks}")
    rows = np.arange(rank, len(row_lengths(batch)), ranks)
    return take_rows(batch, rows) | {"rows": rows}


def rank_parts(batch: Batch, rank: int, ranks: int, parts: int) -> list[tuple[Batch, bool]]:
    """What a rank does of a global batch in up to `parts` passes, each with a share of about the same number of tokens.

    All ranks have the same number of passes, with a row in each. A rank that is left without one is given the first
    row again.

    Returns:
        Batches, as of `rank_rows`, and whether each counts; one of a row that another rank has does not.
    """
    if ranks * parts == 1:
        return [(batch, True)]
    rows = len(row_lengths(batch))
    again = np.zeros(1, np.int64)
    own = []
    for first in range(0, min(rows, ranks * parts), ranks):
        counts = first + rank < rows
        share = (
            rank_rows(batch, first + rank, ranks * parts)
            if counts
            else take_rows(batch, again) | {"rows": again}
        )
        own.append((share, counts))
    return own


def row_lengths(batch: Batch) -> np.ndarray:
    """How many tokens each row has: of inputs where there are targets too."""
    return next(value for name, value in batch.items() if name.endswith("lengths"))


def _take(batch: Batch, name: str, rows: np.ndarray) -> np.ndarray:
    values = batch[name]
    if name in _ONE_A_ROW or name.endswith("lengths"):
        return values[rows]
    if name not in _PLACES:
        lengths = _lengths(batch, name)
        return values[ranges((np.cumsum(lengths) - lengths)[rows], lengths[rows])]
    places = batch[_PLACES[name]]
    lengths = _lengths(batch, "tokens")
    ends = np.cumsum(lengths)
    counts = np.bincount(np.searchsorted(ends, places, side="right"), minlength=len(lengths))
    taken = values[ranges((np.cumsum(counts) - counts)[rows], counts[rows])]
    if name != _PLACES[name]:
        return taken
    moved = np.cumsum(lengths[rows]) - lengths[rows] - (ends - lengths)[rows]
    return taken + np.repeat(moved, counts[rows])


def _lengths(batch: Batch, stream: str) -> np.ndarray:
    """How many of a stream's values each row has, int64."""
    own = f"{stream.removesuffix('s')}_lengths"
    return batch[own if own in batch else "lengths"].astype(np.int64)


class Rows:
    """A table of rows of different lengths in memory."""

    def __init__(self, rows: Iterable[Sequence[int]], dtype: type[np.generic] = np.int32) -> None:
        kept = list(rows)
        self.lengths = np.fromiter(map(len, kept), np.int64, len(kept))
        self._ends = np.cumsum(self.lengths)
        self._flat = np.fromiter(chain.from_iterable(kept), dtype, int(self.lengths.sum()))

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The stream of the named rows, in that order, and their lengths (int32)."""
        lengths = self.lengths[rows]
        return self._flat[ranges(self._ends[rows] - lengths, lengths)], lengths.astype(np.int32)
