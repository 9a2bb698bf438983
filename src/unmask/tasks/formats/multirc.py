"""MultiRC as SuperGLUE publishes it: a passage of questions of answers, each right or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unmask.errors import UserError
from unmask.tasks.formats.files import Table, json_lines


def read_multirc(path: Path) -> Table:
    """Columns: paragraph, question, answer, label (0 or 1), question_id (one for all answers of a question).

    Raises:
        UserError: the file cannot be read, or is not of this form.
    """
    names = ("paragraph", "question", "answer", "label", "question_id")
    table: dict[str, list[Any]] = {name: [] for name in names}
    for number, row in json_lines(path):
        try:
            passage = row["passage"]
            for place, asked in enumerate(passage["questions"]):
                for answer in asked["answers"]:
                    values = (
                        passage["text"],
                        asked["question"],
                        answer["text"],
                        answer["label"],
                        f"{number}-{place}",
                    )
                    for name, value in zip(names, values, strict=True):
                        table[name].append(value)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{path}, line {number}: not MultiRC's form (passage, questions, answers): {error!r}"
            ) from None
    return table
