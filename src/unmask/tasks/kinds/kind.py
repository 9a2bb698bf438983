"""What all kinds of task have in common: a row, and what a kind has to say about its rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from unmask.errors import UserError
from unmask.tasks.metrics import Metric

if TYPE_CHECKING:
    from unmask.tasks.task import Task

#: Which of ELECTRA's heads learns a kind (`unmask.tasks.models`); "writer": the generator writes the answer.
Head = Literal["writer", "label", "number", "tokens", "span", "choice", "pairs"]


@dataclass(frozen=True)
class Row:
    """One row of a task.

    Args:
        number: which row of the file it is, from 1, a header not counted.
        sources: one text for each source column.
        references: what is wanted: one text, or, where a row has several right answers, all of them; none where it
            is not known.
        choices: (multiple choice) the texts to choose from.
        starts: (extractive answers) where in the context each reference begins, in characters; none where the file
            does not say.
        group: rows of the same group are judged together by metrics that ask for it.
        slices: the values of the task's `slices` columns; none where they are not asked for.
    """

    number: int
    sources: tuple[str, ...]
    references: tuple[str, ...]
    choices: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()
    group: str = ""
    slices: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        return self.references[0]


@dataclass(frozen=True)
class Prediction:
    """What a model answers for a row.

    Attributes:
        text: in the form of the row's references.
        confidence: the probability that the model gives it among all answers it could have given; None where these
            cannot be counted.
    """

    text: str
    confidence: float | None = None


class Kind:
    """A kind of task: its columns, its form as text for T5, its head for ELECTRA, its metrics.

    Attributes:
        name: in a task file.
        metrics: those that are reported, the first judges, unless the task names others.
        more_metrics: those that a task may name besides.
        head: ELECTRA's.
        grouped: rows of one source are judged as one row with several references.
        closed: there are only so many answers, or parts of answers, which `labels` gives.
        checks_labels: a label that nothing is known of is a mistake.
        trains: it has something to learn from its rows.
        max_source_length: of a task file that does not say.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    more_metrics: ClassVar[tuple[Metric, ...]] = ()
    head: ClassVar[Head]
    grouped: ClassVar[bool] = False
    closed: ClassVar[bool] = False
    checks_labels: ClassVar[bool] = False
    trains: ClassVar[bool] = True
    max_source_length: ClassVar[int] = 128

    def check(self, task: Task) -> None:
        """Raises:
        UserError: the task's columns or settings do not fit the kind.
        """

    # -- rows ----------------------------------------------------------------------------------------------

    def columns(self, task: Task) -> list[str]:
        """The columns that are read to ask a model."""
        return list(task.source)

    def row(self, task: Task, number: int, values: Mapping[str, Any], where: str) -> Row:
        """A row from the values of its columns; without the target's it has no reference.

        Args:
            where: file and row, for messages.

        Raises:
            UserError: a value that is missing or does not fit.
        """
        sources = tuple(text_of(values[column], column, where) for column in task.source)
        references = (self.reference(task, values[task.target], where),) if task.target in values else ()
        return Row(number, sources, references)

    def reference(self, task: Task, value: Any, where: str) -> str:
        """What is wanted, from the target column's value."""
        return text_of(value, task.target, where)

    def named_labels(self, task: Task) -> tuple[str, ...]:
        """The labels that the task names; () where it leaves them to the training rows."""
        return task.label_names

    def words(self, task: Task, labels: Sequence[str]) -> list[str]:
        """What T5 must be able to write."""
        return [task.word(label) for label in labels]

    def labels(self, task: Task, rows: Sequence[Row]) -> tuple[str, ...]:
        """All answers there are, named by the task or learnt from training rows; () where they are texts of any kind.

        Raises:
            UserError: nothing to choose from.
        """
        return ()

    # -- as text ---------------------------------------------------------------------------------------------

    def source_text(self, task: Task, row: Row) -> str:
        """What a model that writes reads."""
        return task.text(row.sources)

    def target_text(self, task: Task, row: Row) -> str:
        """What it learns to write."""
        return row.target

    def candidates(self, task: Task, row: Row, labels: Sequence[str]) -> Mapping[str, str] | None:
        """Answer → the text that stands for it, where there are only so many: the likeliest is chosen. None: the
        answer is written."""
        return None

    def answer(self, task: Task, row: Row, written: str, labels: Sequence[str]) -> str:
        """The answer that a written text stands for; never an error, whatever was written."""
        return written

    # -- without a model ------------------------------------------------------------------------------------

    def simple_baseline(
        self, task: Task, training: Sequence[Row], rows: Sequence[Row]
    ) -> tuple[str, list[str]]:
        """What is answered without looking: its name, and the answers."""
        from unmask.tasks.baselines import majority_class

        return "majority class", majority_class([row.target for row in training], len(rows))

    def neighbours(self, task: Task, row: Row, answer: str) -> str:
        """The answer of another row, as one for this row."""
        return answer


def text_of(value: Any, column: str, where: str, *, empty: bool = False) -> str:
    """A column's value as text; numbers and truth values as they are written in JSON.

    Args:
        empty: whether there may be none, which is then "".

    Raises:
        UserError: no value, or one that is no text.
    """
    if isinstance(value, str) and (empty or value.strip()):
        return value
    if is_empty(value):
        if empty:
            return ""
        raise UserError(f"{where}: the column {column!r} has no value")
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    raise UserError(f"{where}: the column {column!r} holds {type(value).__name__}, not a text or a number")


def is_empty(value: Any) -> bool:
    """Whether a column has no value: nothing, white space, not a number."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def as_number(text: str) -> float | None:
    """The finite number that a text writes, if it does."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def list_of(value: Any, column: str, where: str) -> list[Any] | None:
    """The values of a column that holds lists; None where it holds something else."""
    return list(value) if isinstance(value, (list, tuple)) else None


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names for a message."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + rest
