"""A number for a text or a pair of texts: similarity, rating."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

from unmask.errors import UserError
from unmask.tasks.kinds.kind import Head, Kind, Row, as_number, text_of
from unmask.tasks.metrics import Metric

if TYPE_CHECKING:
    from unmask.tasks.task import Task


#: Numbers that T5 may choose from.
MOST_NUMBERS = 2000
#: At least so many steps go into a range (STS-B has 25), at most two and a half times as many.
STEPS = 25


def step_for(low: float, high: float) -> float:
    """A round step for numbers between two ends: 1, 2 or 5 times a power of ten."""
    most = (high - low) / STEPS
    power = Decimal(10) ** math.floor(math.log10(most))
    return float(max(power * times for times in (1, 2, 5) if float(power * times) <= most * (1 + 1e-9)))


class Regression(Kind):
    """The target is a number. ELECTRA learns it with the squared error.

    T5 writes it, rounded to the task's `step`, and is asked for the likeliest of all numbers between the ends of
    `range` (or, where the task has none, of the training rows). A step of 0.2 is STS-B's in the T5 paper, 2.4.
    """

    name: ClassVar[str] = "regression"
    metrics: ClassVar[tuple[Metric, ...]] = ("pearson", "spearman")
    head: ClassVar[Head] = "number"
    closed: ClassVar[bool] = True

    def reference(self, task: Task, value: Any, where: str) -> str:
        text = text_of(value, task.target, where)
        if as_number(text) is None:
            raise UserError(f"{where}: the column {task.target!r} holds {text!r}, not a number")
        return text

    def labels(self, task: Task, rows: Sequence[Row]) -> tuple[str, ...]:
        """The numbers that T5 may write."""
        values = [float(row.target) for row in rows]
        low, high = task.range if task.range is not None else (min(values), max(values))
        if low == high:
            raise UserError(f"all {len(rows)} training rows have the target {low:g}: nothing to learn")
        first, last = round(low / task.step), round(high / task.step)
        if last - first >= MOST_NUMBERS:
            raise UserError(
                f"task {task.name!r}: from {low:g} to {high:g} there are {last - first + 1:,} numbers in steps of "
                f"{task.step:g}, and T5 weighs each of them, at most {MOST_NUMBERS:,}: give a larger `step`, such as "
                f"{step_for(low, high):g}"
            )
        return tuple(self._written(task, number * task.step) for number in range(first, last + 1))

    @staticmethod
    def _written(task: Task, value: float) -> str:
        """A number as T5 writes it, with as many decimals as the step has."""
        exponent = Decimal(repr(task.step)).normalize().as_tuple().exponent
        decimals = max(0, -int(exponent))
        rounded = round(value / task.step) * task.step
        # Not "-0.0".
        return f"{rounded + 0.0 if round(rounded, decimals) else 0.0:.{decimals}f}"

    def target_text(self, task: Task, row: Row) -> str:
        value = float(row.target)
        if task.range is not None:
            value = min(max(value, task.range[0]), task.range[1])
        return self._written(task, value)

    def candidates(self, task: Task, row: Row, labels: Sequence[str]) -> Mapping[str, str]:
        return {label: label for label in labels}

    def simple_baseline(
        self, task: Task, training: Sequence[Row], rows: Sequence[Row]
    ) -> tuple[str, list[str]]:
        mean = math.fsum(float(row.target) for row in training) / len(training)
        return "mean of the training rows", [f"{mean:.4f}"] * len(rows)
