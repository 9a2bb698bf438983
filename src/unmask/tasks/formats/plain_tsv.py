"""GLUE's tables: separated by tabs, and a quotation mark is a character like any other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from unmask.tasks.formats.files import Table, read_lines

logger = logging.getLogger("unmask")


def read_plain_tsv(path: Path) -> Table:
    """Columns as the first line names them. A line with fewer fields than that (QQP has some) is left out, and what a
    line has beyond them (STS-B has some) is not read; a warning says how many were left out.

    Raises:
        UserError: the file cannot be read.
    """
    header, *lines = [line.split("\t") for line in read_lines(path)]
    return _table(path, header, lines)


def read_headless_tsv(path: Path) -> Table:
    """The same without a line of names: columns are called 0, 1, … (CoLA)."""
    lines = [line.split("\t") for line in read_lines(path)]
    return _table(path, [str(number) for number in range(len(lines[0]))], lines)


def _table(path: Path, header: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    whole = [line for line in lines if len(line) >= len(header)]
    if len(whole) < len(lines):
        logger.warning(
            "%s: %d of %d lines have fewer than %d fields and are left out",
            path,
            len(lines) - len(whole),
            len(lines),
            len(header),
        )
    return {name: [line[place] for line in whole] for place, name in enumerate(header)}
