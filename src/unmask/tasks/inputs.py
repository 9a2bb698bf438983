"""Rows to predict, one at a time however large their file: the columns that a task reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from unmask.errors import UserError
from unmask.tasks.kinds.kind import Prediction, Row
from unmask.tasks.models import TaskModel
from unmask.tasks.task import Task
from unmask.tasks.texts import READERS, TextFile, kind_of


@dataclass(frozen=True)
class RowFile(TextFile):
    """The rows of a file, each as the JSON of the values of some columns: a `Texts` for `Bulk`.

    Attributes:
        columns: in the file; of a file without columns (.txt, standard input) its lines are the only one.
    """

    columns: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[str]:
        """Raises:
        UserError: as for `TextFile`.
        """
        if len(self.columns) > 1 and not self.has_columns:
            raise UserError(
                f"{self.name} has lines, and the task reads the columns {', '.join(self.columns)}: "
                "give a file with columns"
            )
        for _, values in READERS[kind_of(self.path)](self.path, self.columns):
            yield json.dumps(values, ensure_ascii=False)


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
        found = self.model.predict([self._row(first + place, row) for place, row in enumerate(values)])
        if self.kind == "txt":
            return [" ".join(one.text.splitlines()) for one in found]
        return [self._line(row, one) for row, one in zip(values, found, strict=True)]

    def _row(self, number: int, values: Sequence[Any]) -> Row:
        columns = self.task.its_kind.columns(self.task)
        where = f"{self.name}, row {number + 1}"
        return self.task.its_kind.row(self.task, number + 1, dict(zip(columns, values, strict=True)), where)

    def _line(self, values: Sequence[Any], found: Prediction) -> str:
        fields = dict(zip(input_columns(self.task), values, strict=True)) | {"prediction": found.text}
        if found.confidence is not None:
            fields["confidence"] = round(found.confidence, 6)
        return json.dumps(fields, ensure_ascii=False)
