"""Scores of labels, as scikit-learn defines them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from unmask.tasks.metrics.statistics import RowStatistics, f_score, ratio, sklearn_signature
from unmask.tasks.metrics.text import hits_and_ones


def accuracy_rows(predictions: Sequence[str], labels: Sequence[str]) -> RowStatistics:
    """scikit-learn's accuracy, 0 to 1."""
    hits = [prediction == label for prediction, label in zip(predictions, labels, strict=True)]
    return RowStatistics("accuracy", sklearn_signature(), hits_and_ones(hits), ratio)


def macro_f1_rows(predictions: Sequence[str], labels: Sequence[str]) -> RowStatistics:
    """scikit-learn's F1, 0 to 1: its mean over the classes found in predictions or labels, each counting
    the same. A class that is never predicted, or never right, counts 0."""
    signature = sklearn_signature("average:macro", "zero_division:0")
    return RowStatistics("macro_f1", signature, _class_counts(predictions, labels), _macro_f1)


def f1_rows(predictions: Sequence[str], labels: Sequence[str], positive: str) -> RowStatistics:
    """scikit-learn's F1 of one class, 0 to 1; 0 where it is neither predicted nor present."""
    values = [
        (prediction == label == positive, prediction == positive, label == positive)
        for prediction, label in zip(predictions, labels, strict=True)
    ]
    signature = sklearn_signature(f"pos_label:{positive}", "zero_division:0")
    return RowStatistics("f1", signature, np.array(values, dtype=np.float64), lambda sums: f_score(*sums))


def matthews_rows(predictions: Sequence[str], labels: Sequence[str]) -> RowStatistics:
    """scikit-learn's Matthews correlation, -1 to 1, of any number of classes (Gorodkin's R_K); 0 where all
    predictions, or all labels, are of one class."""
    classes, predicted, present = _as_numbers(predictions, labels)
    rows = np.arange(len(labels))
    counts = np.zeros((2, len(labels), classes))
    counts[0, rows, predicted] = counts[1, rows, present] = 1
    values = np.concatenate(
        [(predicted == present)[:, None], np.ones((len(labels), 1)), counts[0], counts[1]], axis=1
    )
    return RowStatistics("matthews", sklearn_signature(), values, _matthews)


def group_f1_rows(
    predictions: Sequence[str], labels: Sequence[str], groups: Sequence[str], positive: str
) -> RowStatistics:
    """MultiRC's F1a, 0 to 1: the F1 of one class over all rows (answers), whatever question they belong to; what is
    drawn for its interval are the groups (SuperGLUE paper, 3)."""
    rows = f1_rows(predictions, labels, positive)
    return RowStatistics("group_f1", rows.signature, _by_group(rows.values, groups, np.sum), rows.score)


def group_exact_match_rows(
    predictions: Sequence[str], labels: Sequence[str], groups: Sequence[str]
) -> RowStatistics:
    """The share of groups whose rows are all right, 0 to 1 (MultiRC's exact match; SuperGLUE paper, 3)."""
    hits = np.array([[prediction == label] for prediction, label in zip(predictions, labels, strict=True)])
    whole = _by_group(hits.astype(np.float64), groups, np.min)[:, 0].tolist()
    return RowStatistics("group_exact_match", sklearn_signature("groups:all"), hits_and_ones(whole), ratio)


def _by_group(
    values: NDArray[np.float64], groups: Sequence[str], reduce: Callable[..., NDArray[np.float64]]
) -> NDArray[np.float64]:
    """(groups, statistics) in the order in which groups first come."""
    places: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    return np.stack([reduce(values[rows], axis=0) for rows in places.values()])


def _as_numbers(
    predictions: Sequence[str], labels: Sequence[str]
) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """How many classes there are in either, and both as their numbers."""
    classes = {name: index for index, name in enumerate(sorted({*predictions, *labels}))}
    predicted = np.array([classes[name] for name in predictions])
    present = np.array([classes[name] for name in labels])
    return len(classes), predicted, present


def _class_counts(predictions: Sequence[str], labels: Sequence[str]) -> NDArray[np.float64]:
    """(rows, 2 · classes): right (1 in the row's class), then predicted + present (1 or 2 for a class)."""
    classes, predicted, present = _as_numbers(predictions, labels)
    rows = np.arange(len(labels))
    right, seen = np.zeros((2, len(labels), classes))
    right[rows, present] = predicted == present
    seen[rows, predicted] += 1
    seen[rows, present] += 1
    return np.concatenate([right, seen], axis=1)


def _macro_f1(sums: NDArray[np.float64]) -> float:
    """Mean over classes of 2·right / (predicted + present); a class that is in neither has no F1."""
    right, seen = np.split(sums, 2)
    found = seen > 0
    return float(np.mean(2 * right[found] / seen[found]))


def _matthews(sums: NDArray[np.float64]) -> float:
    right, rows = sums[:2]
    predicted, present = np.split(sums[2:], 2)
    covariance = right * rows - predicted @ present
    spread = (rows**2 - predicted @ predicted) * (rows**2 - present @ present)
    return float(covariance / math.sqrt(spread)) if spread > 0 else 0.0
