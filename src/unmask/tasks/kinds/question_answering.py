"""Extractive question answering: the answer is a piece of a context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from unmask.errors import UserError
from unmask.tasks.kinds.kind import Head, Kind, Row, list_of, text_of
from unmask.tasks.metrics import Metric

if TYPE_CHECKING:
    from unmask.tasks.task import Task


class QuestionAnswering(Kind):
    """The source columns are question and context, the target is an answer, a list of right answers, or SQuAD's
    `{"text": […], "answer_start": […]}`; an empty one says that the context has none.

    ELECTRA reads a context of any length in windows (`stride`) and points at the first and the last token. T5 writes
    the answer, and `no_answer` where there is none.
    """

    name: ClassVar[str] = "question-answering"
    metrics: ClassVar[tuple[Metric, ...]] = ("squad_f1", "squad_exact_match")
    more_metrics: ClassVar[tuple[Metric, ...]] = ("mlqa_zh_f1", "mlqa_zh_exact_match")
    head: ClassVar[Head] = "span"
    max_source_length: ClassVar[int] = 384

    def check(self, task: Task) -> None:
        if len(task.source) != 2:
            raise UserError(
                f"task {task.name!r}: question-answering has two source columns, question and context, and 'source' "
                f"names {len(task.source)}"
            )

    def row(self, task: Task, number: int, values: Mapping[str, Any], where: str) -> Row:
        question, context = (text_of(values[column], column, where) for column in task.source)
        if task.target not in values:
            return Row(number, (question, context), ())
        answers, starts = self._answers(task, values[task.target], context, where)
        if starts and len(starts) != len(answers):
            raise UserError(f"{where}: {len(answers)} answers but {len(starts)} starts in {task.target!r}")
        for answer, start in zip(answers, starts, strict=False):
            if context[start : start + len(answer)] != answer:
                raise UserError(
                    f"{where}: the answer {answer[:40]!r} is not at character {start} of the context"
                )
        return Row(number, (question, context), answers or ("",), starts=starts)

    @staticmethod
    def _answers(task: Task, value: Any, context: str, where: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
        starts: Any = ()
        if isinstance(value, dict):
            starts, value = value.get("answer_start", ()), value.get("text", ())
        given = list_of(value, task.target, where)
        if given is None:
            text = text_of(value, task.target, where, empty=True)
            given = [text] if text.strip() else []
        if not given and not task.unanswerable:
            raise UserError(
                f"{where}: no answer in {task.target!r}: if this is meant, set `unanswerable = true`"
            )
        answers = tuple(text_of(answer, task.target, where) for answer in given)
        if not isinstance(starts, (list, tuple)) or not all(type(start) is int for start in starts):
            raise UserError(f"{where}: 'answer_start' must be a list of whole numbers, and is {starts!r}")
        if answers and not starts and answers[0] not in context:
            raise UserError(f"{where}: the answer {answers[0][:40]!r} is not in the context")
        return answers, tuple(starts)

    def span(self, row: Row) -> tuple[int, int] | None:
        """Where the answer that is learnt stands in the context, [start, end); None: there is none."""
        if not row.target:
            return None
        start = row.starts[0] if row.starts else row.sources[1].index(row.target)
        return start, start + len(row.target)

    def target_text(self, task: Task, row: Row) -> str:
        return row.target or task.no_answer

    def answer(self, task: Task, row: Row, written: str, labels: Sequence[str]) -> str:
        return "" if written == task.no_answer else written

    def simple_baseline(
        self, task: Task, training: Sequence[Row], rows: Sequence[Row]
    ) -> tuple[str, list[str]]:
        """The context's sentence that shares the most words with the question."""
        return "most similar sentence", [_likest_sentence(*row.sources) for row in rows]


def _likest_sentence(question: str, context: str) -> str:
    import re

    asked = set(re.findall(r"\w+", question.lower()))
    sentences = [part for part in re.split(r"(?<=[.!?。！？])\s*", context) if part.strip()]
    return max(sentences, key=lambda part: len(asked & set(re.findall(r"\w+", part.lower()))), default="")
