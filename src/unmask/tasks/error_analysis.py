"""Where a system is wrong: the confusion of labels, the worst rows, scores by length and by columns."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from unmask.tasks.evaluation import HeldOut
from unmask.tasks.kinds.kind import Prediction, Row
from unmask.tasks.metrics import Evaluation, score_predictions

#: Rows of each end that a report shows.
WORST = 10
#: Parts that rows are cut into by length.
PARTS = 4
#: Values of a column whose rows are scored by themselves, the most frequent.
VALUES = 50


@dataclass(frozen=True)
class Confusion:
    """How often a label was answered by another.

    Attributes:
        labels: the names of rows and columns, the most frequent first.
        counts: (true, predicted); what is not among the labels is left out.
    """

    labels: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Slice:
    """Some of the rows by themselves.

    Attributes:
        name: what they have in common: how many characters their inputs have, or the value of a column.
        evaluation: in the task's first metric.
    """

    name: str
    evaluation: Evaluation


def confusion(rows: Sequence[Row], predictions: Sequence[str], *, most: int = 20) -> Confusion:
    """Count answers by label.

    Args:
        most: so many labels, the most frequent in rows and answers.
    """
    seen = Counter([row.target for row in rows]) + Counter(predictions)
    labels = [label for label, _ in sorted(seen.items(), key=lambda item: (-item[1], item[0]))[:most]]
    pairs = Counter(zip((row.target for row in rows), predictions, strict=True))
    return Confusion(labels, [[pairs[true, found] for found in labels] for true in labels])


def worst_rows(held_out: HeldOut, predictions: Sequence[Prediction], *, most: int = WORST) -> list[int]:
    """Places of the rows that a system answered worst, the worst first.

    Of labels and choices these are the wrong answers with the highest confidence; of numbers the largest differences;
    of texts, tags and answers the lowest scores of a row alone, of those that are not what was wanted to the letter.
    """
    head, rows = held_out.task.its_kind.head, held_out.rows
    badness = list[float]()
    if head in ("label", "choice", "pairs"):
        badness = [
            -math.inf if found.text == row.target else found.confidence or 0.0
            for row, found in zip(rows, predictions, strict=True)
        ]
    elif head == "number":
        badness = [
            abs(float(found.text) - float(row.target)) for row, found in zip(rows, predictions, strict=True)
        ]
    else:
        scores = held_out.statistics([found.text for found in predictions]).each() or []
        badness = [
            -math.inf if found.text in row.references else -score
            for row, found, score in zip(rows, predictions, scores, strict=True)
        ]
    order = sorted(range(len(badness)), key=lambda place: -badness[place])
    return [place for place in order[:most] if badness[place] > -math.inf]


def by_length(held_out: HeldOut, predictions: Sequence[str], *, parts: int = PARTS) -> list[Slice]:
    """The scores of the shortest quarter of the inputs, the next, and so on; rows of equal length stay together, so
    there can be fewer parts."""
    lengths = np.array([sum(map(len, (*row.sources, *row.choices))) for row in held_out.rows])
    # The part of a row is that of the first row as long as it is.
    ordered = np.sort(lengths)
    part = np.searchsorted(ordered, lengths) * parts // len(lengths)
    slices = []
    for number in np.unique(part):
        places = np.flatnonzero(part == number).tolist()
        name = f"{lengths[places].min():,} to {lengths[places].max():,}"
        slices.append(_slice(held_out, predictions, name, places))
    return slices


def by_value(held_out: HeldOut, predictions: Sequence[str], column: str) -> list[Slice]:
    """The scores of the rows of each value of one of the task's `slices` columns, the values sorted; of more than
    `VALUES` values the most frequent."""
    which = held_out.task.slices.index(column)
    places: dict[str, list[int]] = {}
    for place, row in enumerate(held_out.rows):
        places.setdefault(row.slices[which], []).append(place)
    frequent = sorted(places, key=lambda value: -len(places[value]))[:VALUES]
    return [_slice(held_out, predictions, value, places[value]) for value in sorted(frequent)]


def _slice(held_out: HeldOut, predictions: Sequence[str], name: str, places: Iterable[int]) -> Slice:
    places = list(places)
    some = HeldOut(held_out.task, (), [held_out.rows[place] for place in places])
    evaluation = score_predictions(
        held_out.task.metrics[:1], [predictions[place] for place in places], some.judged
    )
    return Slice(name, evaluation)
