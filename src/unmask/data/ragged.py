"""Ragged batches: rows of different lengths one after another in a flat array, never padded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

Batch = dict[str, np.ndarray]
"""Streams (total,) and their lengths (batch,) by name; see `data.pretraining` and `data.finetuning`."""


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The integers start, start + 1, … of each range, one range after another: (sum of lengths,) int64."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)


def joined(batches: Sequence[Batch]) -> Batch:
    """One batch of all rows of several that have the same keys."""
    if len(batches) == 1:
        return batches[0]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


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
