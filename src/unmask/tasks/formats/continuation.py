"""Articles, each cut in two: how it begins, and how it goes on."""

from __future__ import annotations

import re
from pathlib import Path

from unmask.errors import UserError
from unmask.tasks.formats.directory import read_directory
from unmask.tasks.formats.files import Table, json_lines

#: Words of a beginning, and of what follows; the beginning ends with a sentence where one ends in its second half.
WORDS = 60
_SENTENCE_END = re.compile(r"""[.!?]["')\]]*$""")


def read_continuation(path: Path) -> Table:
    """Columns: beginning, continuation. An article that is too short for a beginning and half a continuation is left
    out.

    Args:
        path: JSON lines with a column text, or a directory of text files.

    Raises:
        UserError: the file cannot be read, has no such column, or no article is long enough.
    """
    table: dict[str, list[str]] = {"beginning": [], "continuation": []}
    for text in _articles(path):
        words = text.split()
        if len(words) < WORDS * 3 // 2:
            continue
        cut = _cut(words)
        table["beginning"].append(" ".join(words[:cut]))
        table["continuation"].append(" ".join(words[cut : cut + WORDS]))
    if not table["beginning"]:
        raise UserError(f"{path} has no article of {WORDS * 3 // 2} words or more")
    return table


def _articles(path: Path) -> list[str]:
    if path.is_dir():
        return list(read_directory(path)["text"])
    texts = []
    for number, row in json_lines(path):
        if not isinstance(row.get("text"), str):
            raise UserError(f"{path}, line {number}: the column 'text' has no value")
        texts.append(row["text"])
    return texts


def _cut(words: list[str]) -> int:
    """Where the last sentence of the first `WORDS` words ends; at `WORDS` where none ends in their second half."""
    ends = [place for place in range(WORDS // 2, WORDS + 1) if _SENTENCE_END.search(words[place - 1])]
    return ends[-1] if ends else WORDS
