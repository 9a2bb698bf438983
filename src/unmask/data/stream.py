"""The stream of batches: batch k is a pure function of (source, batch size, seed, k).

A *source* cuts its corpus into examples, anew each epoch, and corrupts batches of them; this module decides
which examples make batch k. Examples are numbered through all epochs, each epoch in an order of its own, and
batch k holds examples k · batch_size … (k + 1) · batch_size - 1. So every batch is full, the last examples of
an epoch share a batch with the first of the next, and in each epoch every example appears exactly once.

Both kinds of batches are `grain.MapDataset`s: `batches[k]` for one,
`batches.slice(slice(start, stop)).to_iter_dataset(...)` to read ahead in threads or processes.
"""

from __future__ import annotations

import logging
import sys
from threading import Lock
from typing import Any, Protocol

import numpy as np

from unmask.data.ragged import Batch, joined
from unmask.errors import UserError
from unmask.objectives.randomness import generator

# Grain warns at import that JAX's profiler is missing; nobody here wants it.
_absl = logging.getLogger("absl")
_level = _absl.level
_absl.setLevel(logging.ERROR)
from grain import MapDataset  # noqa: E402

_absl.setLevel(_level)


class Plan(Protocol):
    """A corpus cut into numbered examples."""

    def __len__(self) -> int: ...

    def lengths(self, examples: np.ndarray) -> np.ndarray:
        """The tokens that each of these examples has: (n,) int64."""

    def fetch(self, examples: np.ndarray) -> Batch:
        """The batch of the examples with these numbers, in that order, not yet corrupted."""


class Source(Protocol):
    """What batches are made of."""

    @property
    def size(self) -> int | None:
        """How many examples each epoch has; None where it differs from epoch to epoch."""

    def plan(self, rng: np.random.Generator) -> Plan:
        """One epoch's examples."""

    def finish(self, batch: Batch, rng: np.random.Generator, number: int) -> Batch:
        """Corrupt a fetched batch, the one with this number in the stream: what the model is given."""


class TrainingBatches(MapDataset[Batch]):
    """Endless batches over shuffled epochs, each a function of its number alone.

    Where the number of examples differs between epochs (replaced tokens), the first access to a late batch
    makes the plans of all epochs before it: about 0.1 s for each 10 million tokens that they hold.
    """

    def __init__(self, source: Source, *, batch_size: int, seed: int) -> None:
        super().__init__()
        self._source = source
        self._epochs = _Epochs(source, seed)
        self._batch_size = _checked(batch_size)
        self._seed = seed

    def __len__(self) -> int:
        return sys.maxsize

    @property
    def batches_per_epoch(self) -> float:
        """How many batches the examples of the first epoch fill; seldom a whole number."""
        return self._epochs.end(0) / self._batch_size

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        if index < 0:
            raise IndexError(f"batch {index} of an endless stream")
        position, stop = index * self._batch_size, (index + 1) * self._batch_size
        parts: list[Batch] = []
        while position < stop:
            plan, examples, next_epoch = self._epochs.examples(position, stop)
            # In order of length, so that attention over a batch needs hardly any padding (`nn.attention`).
            parts.append(plan.fetch(examples[np.argsort(plan.lengths(examples), kind="stable")]))
            position = min(stop, next_epoch)
        return self._source.finish(joined(parts), generator(self._seed, "corruption", index), index)


class EvaluationBatches(MapDataset[Batch]):
    """One pass over all examples in a fixed order under a fixed corruption; the last batch may be smaller.

    The same for every use with the same source, batch size and seed.
    """

    def __init__(self, source: Source, *, batch_size: int, seed: int) -> None:
        super().__init__()
        self._source = source
        self._plan = source.plan(generator(seed, "evaluation plan"))
        self._batch_size = _checked(batch_size)
        self._seed = seed

    def __len__(self) -> int:
        return -(-len(self._plan) // self._batch_size)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        index %= len(self)
        first = index * self._batch_size
        examples = np.arange(first, min(first + self._batch_size, len(self._plan)))
        return self._source.finish(
            self._plan.fetch(examples), generator(self._seed, "evaluation corruption", index), index
        )


class _Epochs:
    """Which epoch an example of the endless numbering lies in, with the epochs' plans and orders."""

    def __init__(self, source: Source, seed: int) -> None:
        self._source = source
        self._seed = seed
        self._ends: list[int] = []
        self._kept: dict[int, tuple[Plan, np.ndarray]] = {}
        self._lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Epochs, (self._source, self._seed)

    def end(self, epoch: int) -> int:
        """The number of the first example after an epoch."""
        with self._lock:
            return self._end(epoch)

    def examples(self, start: int, stop: int) -> tuple[Plan, np.ndarray, int]:
        """Of the examples start … stop - 1: those in the epoch of the first, by their numbers in its plan.

        Returns:
            that plan, the numbers (n,), and the first example after the epoch.
        """
        with self._lock:
            epoch = start // self._source.size if self._source.size else 0
            while self._end(epoch) <= start:
                epoch += 1
            first, end = (self._end(epoch - 1) if epoch else 0), self._end(epoch)
            plan, order = self._epoch(epoch)
        return plan, order[start - first : stop - first], end

    def _end(self, epoch: int) -> int:
        if self._source.size:
            return (epoch + 1) * self._source.size
        while len(self._ends) <= epoch:
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + len(self._epoch(len(self._ends))[0]))
        return self._ends[epoch]

    def _epoch(self, epoch: int) -> tuple[Plan, np.ndarray]:
        if epoch not in self._kept:
            # Reading ahead, two epochs can be in use at once.
            while len(self._kept) > 1:
                del self._kept[next(iter(self._kept))]
            plan = self._source.plan(generator(self._seed, "plan", epoch))
            self._kept[epoch] = plan, generator(self._seed, "order", epoch).permutation(len(plan))
        return self._kept[epoch]


def _checked(batch_size: int) -> int:
    if batch_size < 1:
        raise UserError(f"batch size is {batch_size}: give at least 1")
    return batch_size
