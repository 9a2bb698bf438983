"""Scores of tags: entities as conlleval and seqeval count them, and tags one by one.

seqeval itself gives no counts of rows, which intervals need; tests compare every value with its.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unmask.tasks.entities import entities
from unmask.tasks.metrics.statistics import RowStatistics, f_score, ratio


def entity_f1_rows(predictions: Sequence[str], tags: Sequence[str]) -> RowStatistics:
    """seqeval's micro-averaged F1 of entities, 0 to 1: type and both ends have to be right. 0 without any."""
    return RowStatistics("entity_f1", SIGNATURE, _counts(predictions, tags), lambda sums: f_score(*sums))


def entity_precision_rows(predictions: Sequence[str], tags: Sequence[str]) -> RowStatistics:
    """The share of the predicted entities that are right, 0 to 1; 0 without any."""
    return RowStatistics("entity_precision", SIGNATURE, _counts(predictions, tags)[:, :2], ratio)


def entity_recall_rows(predictions: Sequence[str], tags: Sequence[str]) -> RowStatistics:
    """The share of the entities that are found, 0 to 1; 0 where there are none."""
    return RowStatistics("entity_recall", SIGNATURE, _counts(predictions, tags)[:, ::2], ratio)


def tag_accuracy_rows(predictions: Sequence[str], tags: Sequence[str]) -> RowStatistics:
    """The share of tokens with the right tag, 0 to 1; a tag that a prediction lacks is wrong."""
    values = []
    for predicted, wanted in zip(predictions, tags, strict=True):
        pairs = zip(predicted.split(), wanted.split(), strict=False)
        values.append((sum(one == other for one, other in pairs), len(wanted.split())))
    return RowStatistics("tag_accuracy", "tokens", np.array(values, dtype=np.float64), ratio)


SIGNATURE = "average:micro|mode:conlleval|zero_division:0"


def _counts(predictions: Sequence[str], tags: Sequence[str]) -> NDArray[np.float64]:
    """(rows, 3): entities that are right, predicted, present."""
    values = []
    for predicted, wanted in zip(predictions, tags, strict=True):
        found, there = set(entities(predicted.split())), set(entities(wanted.split()))
        values.append((len(found & there), len(found), len(there)))
    return np.array(values, dtype=np.float64)
