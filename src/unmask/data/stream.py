"""The stream of batches: batch k is a pure function of (sources, rates, size of a batch, seed, k).

A *source* cuts its corpus into examples, anew each epoch, and corrupts batches of them; this module decides
which examples make batch k. A source's examples are numbered through all its epochs, each epoch in an order of its
own. Of several sources the rates say whose next example comes when (`unmask.data.mixtures`). Of this endless
sequence of examples, batch k holds

- k · batch_size … (k + 1) · batch_size - 1, so every batch is full, and the last examples of an epoch share a batch
  with the first of the next (where batches begin small, those that follow the earlier ones'); or
- what fills `batch_tokens` tokens: the sequence is cut into stretches of as many examples as one epoch of all sources
  has, each packed by `unmask.data.packing` before its first batch is read, and the plan is kept in a file.

Either way every example of the sequence is in exactly one batch.

Both kinds of batches are `grain.MapDataset`s: `batches[k]` for one, `read_ahead` for many in order.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from bisect import bisect_right
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np

from unmask import hub
from unmask.data.mixtures import Mixture
from unmask.data.packing import Packed, check_size, pack
from unmask.data.ragged import Batch, joined, permuted, row_lengths, take_rows
from unmask.errors import UserError
from unmask.objectives.randomness import generator
from unmask.processes import end_with_parent

# Grain warns at import that JAX's profiler is missing; nobody here wants it.
_absl = logging.getLogger("absl")
_level = _absl.level
_absl.setLevel(logging.ERROR)
from grain import MapDataset, MultiprocessingOptions, ReadOptions  # noqa: E402

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
    makes the plans of all epochs before it: about 0.1 s for each 10 million tokens that they hold. With a budget of
    tokens it makes those of all stretches before it, unless they are kept in files.

    Args:
        sources: one, or several by name that make the same kind of examples: the first corrupts those of all.
        rates: of several sources, by name: see `Mixture`.
        batch_size: rows of a batch; exclusive with `batch_tokens`.
        batch_tokens: most tokens of a batch, counted before corruption (pairs: inputs and targets).
        plans: directory for the plans of batches with a budget, which is made; None: they are not kept.
        growth: of batches of rows, how they grow at the beginning; None: they do not.

    Raises:
        UserError: neither or both sizes, one below 1, an example longer than the budget, rates that are not above 0
            or are not those of the sources.
    """

    def __init__(
        self,
        sources: Source | Mapping[str, Source],
        *,
        batch_size: int | None = None,
        batch_tokens: int | None = None,
        rates: Mapping[str, float] | None = None,
        seed: int,
        plans: Path | None = None,
        growth: Growth | None = None,
    ) -> None:
        super().__init__()
        check_size(batch_size, batch_tokens)
        named = sources if isinstance(sources, Mapping) else {"": sources}
        self._source = next(iter(named.values()))
        self._sequence = _Sequence(named, rates or dict.fromkeys(named, 1.0), seed)
        self._seed = seed
        self._cut: _Rows | _Budget = (
            _Rows(batch_size, self._sequence, growth)
            if batch_size is not None
            else _Budget(batch_tokens or 0, self._sequence, plans)
        )

    def __len__(self) -> int:
        return sys.maxsize

    @property
    def batches_per_epoch(self) -> float:
        """How many batches the examples of the first epoch of all sources fill."""
        return self._cut.per_epoch()

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        if index < 0:
            raise IndexError(f"batch {index} of an endless stream")
        batch = self._sequence.fetch(self._cut.examples(index))
        return self._source.finish(batch, generator(self._seed, "corruption", index), index)


class EvaluationBatches(MapDataset[Batch]):
    """One pass over all examples in a fixed order under a fixed corruption; the last batch may be smaller.

    The same for every use with the same source, size of a batch and seed.

    Args:
        batch_size, batch_tokens: as for `TrainingBatches`.
    """

    def __init__(
        self, source: Source, *, batch_size: int | None = None, batch_tokens: int | None = None, seed: int
    ) -> None:
        super().__init__()
        check_size(batch_size, batch_tokens)
        self._source = source
        self._plan = source.plan(generator(seed, "evaluation plan"))
        self._seed = seed
        examples = np.arange(len(self._plan))
        self._packed = (
            Packed(examples, np.append(examples[::batch_size], len(examples)))
            if batch_size is not None
            else pack(self._plan.lengths(examples), batch_tokens or 0)
        )

    def __len__(self) -> int:
        return len(self._packed.starts) - 1

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        index %= len(self)
        order, starts = self._packed
        batch = self._plan.fetch(order[starts[index] : starts[index + 1]])
        return self._source.finish(batch, generator(self._seed, "evaluation corruption", index), index)


def read_ahead(
    batches: MapDataset[Batch], first: int, stop: int, *, workers: int = 0
) -> Generator[Batch, None, None]:
    """Batches first … stop - 1 in order, the next ones made while the current one is used; closing it ends that.

    Args:
        workers: processes that make them; 0: a thread of this one. The batches are the same.
    """
    part = batches.slice(slice(first, stop))
    if not workers:
        yield from part.to_iter_dataset(ReadOptions(num_threads=1, prefetch_buffer_size=4))
        return
    options = MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
    read = part.to_iter_dataset(ReadOptions(num_threads=0)).mp_prefetch(options, _begin_reading)
    iterator = iter(read)
    try:
        yield from iterator
    finally:
        iterator.close()


def _begin_reading(worker: int, workers: int) -> None:
    """Ctrl-C reaches the reading processes too, but they end with the trainer, when it has saved or is killed."""
    del worker, workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


@dataclass(frozen=True)
class Growth:
    """Batches that begin small: their rows grow in a straight line (GPT-3, arXiv 2005.14165, appendix B).

    Attributes:
        first: rows of batch 0.
        batches: after so many they have their full size.
    """

    first: int
    batches: int

    def sizes(self, full: int) -> np.ndarray:
        """Rows of the first `batches` batches, int64."""
        share = np.arange(self.batches) / max(1, self.batches)
        return np.rint(self.first + (full - self.first) * share).astype(np.int64)


class _Rows:
    """Batches of a number of rows."""

    def __init__(self, batch_size: int, sequence: _Sequence, growth: Growth | None) -> None:
        self._batch_size = batch_size
        self._sequence = sequence
        sizes = np.zeros(0, np.int64) if growth is None else growth.sizes(batch_size)
        #: Where the batches that are still growing begin, and the first that is full.
        self._starts = np.concatenate([[0], np.cumsum(sizes)])

    def per_epoch(self) -> float:
        return self._sequence.epoch / self._batch_size

    def examples(self, batch: int) -> np.ndarray:
        """The numbers in the sequence of a batch's examples, sorted."""
        growing = len(self._starts) - 1
        if batch < growing:
            return np.arange(self._starts[batch], self._starts[batch + 1])
        first = int(self._starts[-1]) + (batch - growing) * self._batch_size
        return np.arange(first, first + self._batch_size)


class _Budget:
    """Batches of a budget of tokens, planned a stretch at a time."""

    def __init__(self, batch_tokens: int, sequence: _Sequence, directory: Path | None) -> None:
        self._arguments = batch_tokens, sequence, directory
        self._kept: dict[int, Packed] = {}
        #: The number of the first batch after each stretch so far.
        self._ends: list[int] = []
        self._lock = Lock()
        with self._lock:
            self._stretch(0)  # an example that is too long is better found now

    def __reduce__(self) -> tuple[Any, ...]:
        return _Budget, self._arguments

    def per_epoch(self) -> float:
        return float(self._ends[0])

    def examples(self, batch: int) -> np.ndarray:
        """The numbers in the sequence of a batch's examples, sorted."""
        with self._lock:
            while not self._ends or self._ends[-1] <= batch:
                self._stretch(len(self._ends))
            number = bisect_right(self._ends, batch)
            order, starts = self._stretch(number)
        batch -= self._ends[number - 1] if number else 0
        return number * self._arguments[1].epoch + order[starts[batch] : starts[batch + 1]].astype(np.int64)

    def _stretch(self, number: int) -> Packed:
        if number not in self._kept:
            while len(self._kept) > 1:
                del self._kept[next(iter(self._kept))]
            self._kept[number] = self._read(number) or self._make(number)
            if number == len(self._ends):
                before = self._ends[-1] if self._ends else 0
                self._ends.append(before + len(self._kept[number].starts) - 1)
        return self._kept[number]

    def _make(self, number: int) -> Packed:
        budget, sequence, directory = self._arguments
        first = number * sequence.epoch
        packed = pack(sequence.lengths(np.arange(first, first + sequence.epoch)), budget)
        if directory is not None:
            with hub.atomic_file(_plan_file(directory, number)) as temporary, temporary.open("wb") as file:
                np.savez(file, order=packed.order, starts=packed.starts, made_from=self._made_from(number))
        return packed

    def _read(self, number: int) -> Packed | None:
        """The plan in its file; None where there is none that is whole and of this stream."""
        directory = self._arguments[2]
        if directory is None:
            return None
        try:
            with np.load(_plan_file(directory, number)) as file:
                if str(file["made_from"]) == self._made_from(number):
                    return Packed(file["order"], file["starts"])
        except (OSError, ValueError, KeyError, BadZipFile):
            pass
        return None

    def _made_from(self, number: int) -> str:
        budget, sequence, _ = self._arguments
        return json.dumps({"stretch": number, "batch_tokens": budget, **sequence.identity})


def _plan_file(directory: Path, number: int) -> Path:
    return directory / f"batches-{number:05}.npz"


class _Sequence:
    """The endless sequence of the examples of all sources."""

    def __init__(self, sources: Mapping[str, Source], rates: Mapping[str, float], seed: int) -> None:
        if sources.keys() != rates.keys():
            raise UserError(
                f"rates of {', '.join(rates)}, sources {', '.join(sources)}: name each source once"
            )
        self._mixture = Mixture([rates[name] for name in sources])
        self._epochs = [_Epochs(source, name, seed) for name, source in sources.items()]
        #: The number of examples of one epoch of all sources, the first of each.
        self.epoch = sum(epochs.end(0) for epochs in self._epochs)
        self.identity = {
            "seed": seed,
            "sources": [[name, epochs.end(0)] for name, epochs in zip(sources, self._epochs, strict=True)],
            "rates": self._mixture.weights,
        }

    def lengths(self, examples: np.ndarray) -> np.ndarray:
        lengths = np.empty(len(examples), np.int64)
        for plan, numbers, places in self._parts(examples):
            lengths[places] = plan.lengths(numbers)
        return lengths

    def fetch(self, examples: np.ndarray) -> Batch:
        """Their batch, in order of length, so that attention over it needs hardly any padding (`nn.attention`)."""
        parts = []
        for plan, numbers, _ in self._parts(examples):
            parts.append(plan.fetch(numbers[np.argsort(plan.lengths(numbers), kind="stable")]))
        batch = joined(parts)
        if len(self._epochs) == 1:
            return batch  # the end of an epoch and the beginning of the next, each in order
        return take_rows(batch, np.argsort(row_lengths(batch), kind="stable"))

    def _parts(self, examples: np.ndarray) -> Iterator[tuple[Plan, np.ndarray, np.ndarray]]:
        """For each epoch of each source that has some of them: its plan, their numbers in it, and which they are."""
        for epochs, (places, own) in zip(self._epochs, self._mixture.split(examples), strict=True):
            done = 0
            while done < len(own):
                plan, numbers = epochs.examples(own[done:])
                yield plan, numbers, places[done : done + len(numbers)]
                done += len(numbers)


class _Epochs:
    """Which epoch an example of a source's endless numbering lies in, with the epochs' plans and orders."""

    def __init__(self, source: Source, name: str, seed: int) -> None:
        self._arguments = source, name, seed
        self._source = source
        self._purpose = f" of {name}" if name else ""
        self._seed = seed
        self._ends: list[int] = []
        self._kept: dict[int, tuple[Plan, np.ndarray]] = {}
        self._lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Epochs, self._arguments

    def end(self, epoch: int) -> int:
        """The number of the first example after an epoch."""
        with self._lock:
            return self._end(epoch)

    def examples(self, wanted: np.ndarray) -> tuple[Plan, np.ndarray]:
        """Of examples in ascending order: those in the epoch of the first, as a plan and their numbers in it."""
        start = int(wanted[0])
        with self._lock:
            epoch = start // self._source.size if self._source.size else 0
            while self._end(epoch) <= start:
                epoch += 1
            first, end = (self._end(epoch - 1) if epoch else 0), self._end(epoch)
            plan, order = self._epoch(epoch)
        return plan, order[wanted[: np.searchsorted(wanted, end)] - first].astype(np.int64)

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
            plan = self._source.plan(generator(self._seed, f"plan{self._purpose}", epoch))
            order = permuted(len(plan), generator(self._seed, f"order{self._purpose}", epoch))
            self._kept[epoch] = plan, order
        return self._kept[epoch]
