"""Scores of predicted numbers: scipy's correlations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from unmask.tasks.metrics.statistics import RowStatistics


def pearson_rows(predictions: Sequence[str], numbers: Sequence[str]) -> RowStatistics:
    """scipy's Pearson correlation, -1 to 1; 0 where either side is constant."""
    return RowStatistics("pearson", _signature(), _pairs(predictions, numbers), _pearson, of_sums=False)


def spearman_rows(predictions: Sequence[str], numbers: Sequence[str]) -> RowStatistics:
    """scipy's Spearman correlation: Pearson's of the ranks, ties at their mean; 0 where either side is constant."""
    return RowStatistics("spearman", _signature(), _pairs(predictions, numbers), _spearman, of_sums=False)


def _signature() -> str:
    return f"constant:0|scipy:{version('scipy')}"


def _pairs(predictions: Sequence[str], numbers: Sequence[str]) -> NDArray[np.float64]:
    """(rows, 2). What is no number was not understood, and counts as 0."""
    return np.array(
        [
            (_number(prediction), float(number))
            for prediction, number in zip(predictions, numbers, strict=True)
        ]
    )


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0


def _pearson(pairs: NDArray[np.float64]) -> float:
    centred = pairs - pairs.mean(axis=0)
    lengths = np.sqrt((centred**2).sum(axis=0))
    # What is left of a constant after subtracting its mean is rounding.
    if (lengths <= 1e-12 * np.maximum(1, np.abs(pairs).max(axis=0))).any():
        return 0.0
    first, second = (centred / lengths).T
    return float(np.clip(first @ second, -1, 1))


def _spearman(pairs: NDArray[np.float64]) -> float:
    from scipy.stats import rankdata

    return _pearson(rankdata(pairs, axis=0))
