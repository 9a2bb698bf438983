"""TREC's question types as published: `LABEL:fine question`, in Latin-1."""

from __future__ import annotations

from pathlib import Path

from unmask.errors import UserError
from unmask.tasks.formats.files import Table, read_bytes


def read_trec(path: Path) -> Table:
    """Columns: text, label (6), fine_label (50).

    Raises:
        UserError: the file cannot be read, or a line is not of this form.
    """
    table: dict[str, list[str]] = {"text": [], "label": [], "fine_label": []}
    # Latin-1 takes any byte; the file has one that is not UTF-8.
    for number, line in enumerate(read_bytes(path).decode("latin-1").splitlines(), start=1):
        fine, _, question = line.strip().partition(" ")
        label, colon, _ = fine.partition(":")
        if not colon or not question:
            raise UserError(f"{path}, line {number}: {line[:40]!r} is not of the form `LABEL:fine question`")
        table["text"].append(question)
        table["label"].append(label)
        table["fine_label"].append(fine)
    return table
