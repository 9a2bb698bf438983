"""Which of several texts is right?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from unmask.errors import UserError
from unmask.tasks.kinds.kind import Head, Kind, Row, list_of, text_of
from unmask.tasks.metrics import Metric

if TYPE_CHECKING:
    from unmask.tasks.task import Task


class MultipleChoice(Kind):
    """`choices` names a column for each choice, or one that holds a list of them; the target is the number of the
    right one, from 0, or its text. Answers are numbers.

    ELECTRA judges each choice behind the source. T5 reads the source with all choices, and is asked which of them it
    would rather write.
    """

    name: ClassVar[str] = "multiple-choice"
    metrics: ClassVar[tuple[Metric, ...]] = ("accuracy",)
    head: ClassVar[Head] = "choice"

    def check(self, task: Task) -> None:
        if not task.choices:
            raise UserError(
                f'task {task.name!r}: name the columns of the choices, such as `choices = ["choice1", "choice2"]`'
            )

    def columns(self, task: Task) -> list[str]:
        return [*task.source, *task.choices]

    def row(self, task: Task, number: int, values: Mapping[str, Any], where: str) -> Row:
        sources = tuple(text_of(values[column], column, where) for column in task.source)
        choices = self._choices(task, values, where)
        if len(choices) < 2:
            raise UserError(f"{where}: {len(choices)} choices: there must be at least two")
        if task.target not in values:
            return Row(number, sources, (), choices)
        given = text_of(values[task.target], task.target, where)
        return Row(number, sources, (self._right(task, given, choices, where),), choices)

    @staticmethod
    def _choices(task: Task, values: Mapping[str, Any], where: str) -> tuple[str, ...]:
        texts: list[str] = []
        for column in task.choices:
            many = list_of(values[column], column, where)
            texts += [text_of(value, column, where) for value in ([values[column]] if many is None else many)]
        return tuple(texts)

    @staticmethod
    def _right(task: Task, given: str, choices: Sequence[str], where: str) -> str:
        given = task.labels.get(given, given)
        if given in choices:
            return str(choices.index(given))
        if given.isdecimal() and int(given) < len(choices):
            return str(int(given))
        raise UserError(
            f"{where}: the target is {given!r}: give the number of a choice, from 0 to {len(choices) - 1}, or its text"
        )

    def source_text(self, task: Task, row: Row) -> str:
        listed = " ".join(f"choice{number}: {text}" for number, text in enumerate(row.choices, start=1))
        return f"{task.text(row.sources)} {listed}"

    def target_text(self, task: Task, row: Row) -> str:
        return row.choices[int(row.target)]

    def candidates(self, task: Task, row: Row, labels: Sequence[str]) -> Mapping[str, str]:
        return {str(number): text for number, text in enumerate(row.choices)}
