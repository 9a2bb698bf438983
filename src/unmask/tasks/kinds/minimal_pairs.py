"""Which of two sentences that differ little is the acceptable one? Asked without training (BLiMP and its like)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from unmask.errors import UserError
from unmask.tasks.kinds.kind import Head, Kind, Row
from unmask.tasks.metrics import Metric

if TYPE_CHECKING:
    from unmask.tasks.task import Task


class MinimalPairs(Kind):
    """The source columns are the acceptable sentence and the other. The answer is the number of the one that a model
    finds likelier, 0 or 1; 0 is right.

    `unmask.tasks.heads.pairs` says how sentences are scored.
    """

    name: ClassVar[str] = "minimal-pairs"
    metrics: ClassVar[tuple[Metric, ...]] = ("accuracy",)
    head: ClassVar[Head] = "pairs"
    trains: ClassVar[bool] = False

    def check(self, task: Task) -> None:
        if len(task.source) != 2:
            raise UserError(
                f"task {task.name!r}: minimal-pairs has two source columns, the acceptable sentence first, and "
                f"'source' names {len(task.source)}"
            )

    def row(self, task: Task, number: int, values: Mapping[str, Any], where: str) -> Row:
        row = super().row(task, number, values, where)
        return Row(number, row.sources, ("0",))

    def simple_baseline(
        self, task: Task, training: Sequence[Row], rows: Sequence[Row]
    ) -> tuple[str, list[str]]:
        return "the shorter one", [
            str(int(len(bad) < len(good))) for good, bad in (row.sources for row in rows)
        ]
