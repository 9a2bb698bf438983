"""ReCoRD as SuperGLUE publishes it: a passage, and sentences in which one of its entities is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unmask.errors import UserError
from unmask.tasks.formats.files import Table, json_lines


def read_record(path: Path) -> Table:
    """Columns: passage, query (with @placeholder), answers (`{"text": […], "answer_start": […]}`).

    Raises:
        UserError: the file cannot be read, or is not of this form.
    """
    table: dict[str, list[Any]] = {"passage": [], "query": [], "answers": []}
    for number, row in json_lines(path):
        try:
            text = row["passage"]["text"]
            for asked in row["qas"]:
                starts = [answer["start"] for answer in asked["answers"]]
                # "end" is the last character's.
                ends = [answer["end"] + 1 for answer in asked["answers"]]
                table["passage"].append(text)
                table["query"].append(asked["query"])
                table["answers"].append(
                    {
                        "text": [text[start:end] for start, end in zip(starts, ends, strict=True)],
                        "answer_start": starts,
                    }
                )
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{path}, line {number}: not ReCoRD's form (passage, qas, answers): {error!r}"
            ) from None
    return table
