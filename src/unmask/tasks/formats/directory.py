"""A directory of text files, in sub-directories named by their labels where they have any."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unmask.errors import UserError


def read_directory(path: Path) -> Mapping[str, list[Any]]:
    """Columns: text (a file's whole text), label (the name of the directory that it is in), name (of the file); in
    the order of their paths.

    Raises:
        UserError: no directory, no file that ends in `.txt`, a file that is not UTF-8.
    """
    if not path.is_dir():
        raise UserError(f"no directory {path}")
    files = sorted(path.rglob("*.txt"))
    if not files:
        raise UserError(
            f"{path} is a directory with no file that ends in .txt: name a file, or put texts there"
        )
    table: dict[str, list[Any]] = {"text": [], "label": [], "name": []}
    for file in files:
        try:
            table["text"].append(file.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as error:
            raise UserError(
                f"{file}: byte 0x{error.object[error.start]:02x} is not UTF-8; save the file as UTF-8"
            ) from None
        table["label"].append(file.parent.name)
        table["name"].append(file.name)
    return table
