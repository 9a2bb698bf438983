"""SQuAD's JSON, of versions 1.1 and 2.0: articles of paragraphs of questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unmask.errors import UserError
from unmask.tasks.formats.files import Table, read_json


def read_squad(path: Path) -> Table:
    """Columns: id, title, question, context, answers (`{"text": […], "answer_start": […]}`, empty where there is none).

    White space around a question is removed, as the published evaluation's users do; contexts are as they are, since
    answers are counted in them.

    Raises:
        UserError: the file cannot be read, or is not of this form.
    """
    table: dict[str, list[Any]] = {name: [] for name in ("id", "title", "question", "context", "answers")}
    try:
        for article in read_json(path)["data"]:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    # SQuAD 2 keeps what might have been answered as "plausible_answers".
                    answers = [] if asked.get("is_impossible") else asked["answers"]
                    table["id"].append(str(asked["id"]))
                    table["title"].append(article.get("title", ""))
                    table["question"].append(asked["question"].strip())
                    table["context"].append(paragraph["context"])
                    table["answers"].append(
                        {
                            "text": [answer["text"] for answer in answers],
                            "answer_start": [answer["answer_start"] for answer in answers],
                        }
                    )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not SQuAD's JSON (data, paragraphs, qas, answers): {error!r}") from None
    return table
