"""Rows to predict, one at a time however large their file: the columns that a task reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from unmask.errors import UserError
from unmask.tasks.kinds.kind import Prediction, Row
from unmask.tasks.models import TaskModel
from unmask.tasks.task import Task
from unmask.tasks.texts import READERS, TextFile, kind_of


@dataclass(frozen=True)
class RowFile(TextFile):
    """The rows of a file, each as the JSON of the values of a task's columns: a `Texts` for `Bulk`.

    Of a file without columns (.txt, standard input) its lines are the only one.

    Attributes:
        task: reads them.
    """

    task: Task = field(kw_only=True, compare=False)

    def __iter__(self) -> Iterator[str]:
        """Raises:
        UserError: as for `TextFile`; a value is missing or does not fit. Names its row, from 1, so that the first
            reading of a file (`texts.survey`) finds it before any row is answered.
        """
        columns = input_columns(self.task)
        if len(columns) > 1 and not self.has_columns:
            raise UserError(
                f"{self.name} has lines, and the task reads the columns {', '.join(columns)}: "
                "give a file with columns"
            )
        reader = READERS[kind_of(self.path)]
        for number, (_, values) in enumerate(reader(self.path, columns), start=1):
            row_to_ask(self.task, number, values, self.name)
            yield json.dumps(values, ensure_ascii=False)


def row_to_ask(task: Task, number: int, values: Sequence[Any], name: str) -> Row:
    """A row of the values of `input_columns`.

    Raises:
        UserError: a value is missing or does not fit.
    """
    named = dict(zip(task.its_kind.columns(task), values, strict=True))
    return task.its_kind.row(task, number, named, f"{name}, row {number}")


def input_columns(task: Task) -> tuple[str, ...]:
    """The columns of a task's files that are read to ask a model."""
    return tuple(task.columns.get(column, column) for column in task.its_kind.columns(task))


class LinePredictor:
    """A task's model whose answers are lines: a `bulk.Answer`.

    In format txt an answer is a line, line breaks in it turned into spaces; in jsonl an object with the columns that
    were read, `prediction` and, where it can be had, `confidence`.
    """

    def __init__(self, task: Task, model: TaskModel, kind: str, name: str) -> None:
        """Args:
        kind: "txt" or "jsonl".
        name: what messages call the input.
        """
        self.task, self.model, self.kind, self.name = task, model, kind, name

    def __call__(self, texts: Sequence[str], first: int) -> list[str]:
        """Raises:
        UserError: a value is missing or does not fit; names its row, from 1.
        """
        values = [json.loads(text) for text in texts]
        rows = [row_to_ask(self.task, first + n, row, self.name) for n, row in enumerate(values, start=1)]
        found = self.model.predict(rows)
        if self.kind == "txt":
            return [" ".join(one.text.splitlines()) for one in found]
        return [self._line(row, one) for row, one in zip(values, found, strict=True)]

    def _line(self, values: Sequence[Any], found: Prediction) -> str:
        fields = dict(zip(input_columns(self.task), values, strict=True)) | {"prediction": found.text}
        if found.confidence is not None:
            fields["confidence"] = round(found.confidence, 6)
        return json.dumps(fields, ensure_ascii=False)
