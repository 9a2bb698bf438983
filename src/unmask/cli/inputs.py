"""Texts from the command line or from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unmask.errors import UserError


def read_lines(texts: Sequence[str] | None, file: Path | None) -> list[str]:
    """The texts, or the lines of the file.

    Raises:
        UserError: neither or both, a file that is missing, empty or not UTF-8.
    """
    if (not texts) == (file is None):
        raise UserError("give texts, or a file with --input: one of the two")
    if file is None:
        return list(texts or [])
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    if not lines:
        raise UserError(f"{file} is empty")
    return lines
