"""One of a set of labels, for a text or for a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from unmask.errors import UserError
from unmask.tasks.kinds.kind import Head, Kind, Row, text_of
from unmask.tasks.metrics import Metric

if TYPE_CHECKING:
    from unmask.tasks.task import Task


class Classification(Kind):
    """The target is one of the labels that the task names, or else of those seen in training.

    T5 learns to write a label's word and is asked which of all words is the likeliest, so its answer is always one
    of the labels.
    """

    name: ClassVar[str] = "classification"
    metrics: ClassVar[tuple[Metric, ...]] = ("accuracy", "macro_f1")
    more_metrics: ClassVar[tuple[Metric, ...]] = ("f1", "matthews", "group_f1", "group_exact_match")
    head: ClassVar[Head] = "label"
    closed: ClassVar[bool] = True
    checks_labels: ClassVar[bool] = True

    def reference(self, task: Task, value: Any, where: str) -> str:
        text = text_of(value, task.target, where)
        return task.labels.get(text, text)

    def labels(self, task: Task, rows: Sequence[Row]) -> tuple[str, ...]:
        if task.label_names:
            return task.label_names
        labels = tuple(sorted({row.target for row in rows}))
        if len(labels) == 1:
            raise UserError(f"all {len(rows)} training rows have the label {labels[0]!r}: nothing to learn")
        return labels

    def target_text(self, task: Task, row: Row) -> str:
        return task.word(row.target)

    def candidates(self, task: Task, row: Row, labels: Sequence[str]) -> Mapping[str, str]:
        return {label: task.word(label) for label in labels}


class PairClassification(Classification):
    """The same for two texts, which ELECTRA reads as two segments."""

    name: ClassVar[str] = "pair-classification"

    def check(self, task: Task) -> None:
        if len(task.source) != 2 and not task.segments:
            raise UserError(
                f"task {task.name!r}: {self.name} has two source columns, and 'source' names {len(task.source)}"
            )
