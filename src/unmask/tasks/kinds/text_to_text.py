"""Text in, text out: translation, summarisation, data to text, correction, dialogue, continuation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from unmask.errors import UserError
from unmask.tasks.kinds.kind import Head, Kind, Row, list_of, text_of
from unmask.tasks.metrics import Metric

if TYPE_CHECKING:
    from unmask.tasks.task import Task


class TextToText(Kind):
    """The target is written. A target column may hold a list of texts: all are right, the first is learnt."""

    name: ClassVar[str] = "text-to-text"
    metrics: ClassVar[tuple[Metric, ...]] = ("bleu", "chrf", "exact_match")
    more_metrics: ClassVar[tuple[Metric, ...]] = (
        *("bleu_zh", "bleu_char"),
        *("rouge1", "rouge2", "rouge_l"),
        *("edit_f05", "edit_precision", "edit_recall"),
    )
    head: ClassVar[Head] = "writer"
    grouped: ClassVar[bool] = True

    def check(self, task: Task) -> None:
        edits = [metric for metric in task.metrics if metric.startswith("edit_")]
        if edits and len(task.source) > 1:
            raise UserError(
                f"task {task.name!r}: {edits[0]} judges what was changed in one text, and 'source' names "
                f"{len(task.source)}"
            )

    def row(self, task: Task, number: int, values: Mapping[str, Any], where: str) -> Row:
        given = list_of(values.get(task.target), task.target, where)
        if not given:
            return super().row(task, number, values, where)
        sources = tuple(text_of(values[column], column, where) for column in task.source)
        return Row(number, sources, tuple(text_of(value, task.target, where) for value in given))

    def simple_baseline(
        self, task: Task, training: Sequence[Row], rows: Sequence[Row]
    ) -> tuple[str, list[str]]:
        return "copy of the input", [" ".join(row.sources) for row in rows]
