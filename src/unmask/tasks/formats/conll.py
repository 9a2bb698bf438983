"""CoNLL's columns: a token a line, its tag in the last column, an empty line behind each sentence."""

from __future__ import annotations

from pathlib import Path

from unmask.errors import UserError
from unmask.tasks.formats.files import Table, read_lines

#: The line that begins a document of CoNLL-2003; it is no sentence.
DOCUMENT = "-DOCSTART-"


def read_conll(path: Path) -> Table:
    """Columns: tokens, tags, each a list; columns in the file are separated by tabs or spaces; in a file with tabs,
    lines that begin with "# " and have none are comments.

    Raises:
        UserError: the file cannot be read, or a line has no second column.
    """
    tokens, tags = list[list[str]](), list[list[str]]()
    words, marks = list[str](), list[str]()
    lines = read_lines(path)
    # A token may be "#": a comment can be told from it in a file with tabs alone.
    tabs = any("\t" in line for line in lines)
    for number, line in enumerate([*lines, ""], start=1):
        if tabs and line.startswith("# ") and "\t" not in line:
            continue
        parts = line.split("\t") if "\t" in line else line.split(" ")
        parts = [part.strip() for part in parts if part.strip()]
        if not parts or parts[0] == DOCUMENT:
            if words:
                tokens.append(words)
                tags.append(marks)
            words, marks = [], []
            continue
        if len(parts) < 2:
            raise UserError(
                f"{path}, line {number}: {line[:40]!r} has one column: a token and its tag are read"
            )
        words.append(parts[0])
        marks.append(parts[-1])
    return {"tokens": tokens, "tags": tags}
