"""Scores of rows, their intervals and differences, by drawing the rows anew.

A corpus score is not a mean over rows, but nearly every one is a function of sums over rows: `RowStatistics` holds the
summands, so that a resample costs a sum, not a new scoring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
COVERAGE = 0.95


@dataclass(frozen=True)
class Interval:
    """The two ends of a 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """How much higher the first system scores than the second on the same rows, with its 95 % interval.

    Where the interval leaves out zero, the difference is more than chance in the choice of rows.
    """

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """The interval leaves out zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, eq=False)
class RowStatistics:
    """What each row adds to a corpus score.

    Args:
        metric: which score.
        signature: how it is computed.
        values: (rows, statistics). A row is what is drawn: a row of the task, or a group of them.
        score: of the (statistics,) sum over rows; of the (drawn, statistics) values themselves where the score is no
            function of sums (ranks).
        of_sums: which of the two.
    """

    metric: str
    signature: str
    values: NDArray[np.float64]
    score: Callable[[NDArray[np.float64]], float]
    of_sums: bool = True

    def total(self) -> float:
        """The score of all rows, each once."""
        return self.score(self.values.sum(axis=0) if self.of_sums else self.values)

    def counted(self, counts: NDArray[np.int64]) -> float:
        """The score of the rows, each so often as (rows,) counts say."""
        if self.of_sums:
            # A sum of the drawn rows, without copying any.
            return self.score(counts @ self.values)
        return self.score(np.repeat(self.values, counts, axis=0))

    def each(self) -> list[float] | None:
        """The score of each row alone; None where a row alone has none."""
        return [self.score(row) for row in self.values] if self.of_sums else None


@dataclass(frozen=True)
class Evaluation:
    """What a system scored on a set of rows.

    Args:
        scores: metric → score.
        intervals: metric → 95 % bootstrap interval of that score.
        signatures: metric → how it was computed.
        predictions: one for each row, in the rows' order.
    """

    scores: Mapping[str, float]
    intervals: Mapping[str, Interval]
    signatures: Mapping[str, str]
    predictions: tuple[str, ...]

    @property
    def rows(self) -> int:
        return len(self.predictions)


def bootstrap_interval(rows: RowStatistics, *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The 95 % percentile bootstrap interval of a score: the rows are drawn anew, with replacement,
    `resamples` times (Koehn 2004, "Statistical significance tests for machine translation evaluation")."""
    return Interval(
        *_percentiles([rows.counted(counts) for counts in _draws(len(rows.values), resamples, seed)])
    )


def paired_difference(
    first: RowStatistics, second: RowStatistics, *, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """By how much `first` scores higher than `second`: each resample draws the same rows of both, so that
    what makes a row hard for either cancels.

    Raises:
        ValueError: the two are not of one metric on as many rows.
    """
    if (first.metric, len(first.values)) != (second.metric, len(second.values)):
        raise ValueError(
            f"{first.metric} on {len(first.values)} rows cannot be compared with "
            f"{second.metric} on {len(second.values)}"
        )
    differences = [
        first.counted(counts) - second.counted(counts)
        for counts in _draws(len(first.values), resamples, seed)
    ]
    return Difference(first.total() - second.total(), *_percentiles(differences))


def _draws(rows: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """How often each of the rows was drawn, (rows,), in each resample."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(generator.integers(0, rows, rows), minlength=rows)


def _percentiles(scores: Sequence[float]) -> tuple[float, float]:
    tail = 100 * (1 - COVERAGE) / 2
    low, high = np.percentile(scores, [tail, 100 - tail])
    return float(low), float(high)


def check_rows(predictions: Sequence[str], references: Sequence[Any]) -> None:
    """Raises:
    ValueError: no rows, or not as many predictions.
    """
    if not len(references):
        raise ValueError("there are no rows to score")
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} rows")


def ratio(sums: NDArray[np.float64]) -> float:
    """The first sum by the second; 0 by 0 is 0."""
    return float(sums[0] / sums[1]) if sums[1] else 0.0


def f_score(right: float, predicted: float, present: float) -> float:
    """Harmonic mean of precision and recall; 0 where nothing is predicted or present (scikit-learn's and seqeval's
    `zero_division=0`)."""
    return float(2 * right / (predicted + present)) if predicted + present else 0.0


def sklearn_signature(*parts: str) -> str:
    """How scikit-learn's metrics were computed."""
    import sklearn

    return "|".join((*parts, f"scikit-learn:{sklearn.__version__}"))
