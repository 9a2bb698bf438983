"""Parallel texts: files that say the same line by line, named alike but for the end (`train.en`, `train.de`)."""

from __future__ import annotations

from pathlib import Path

from unmask.errors import UserError
from unmask.tasks.formats.files import Table, read_lines


def read_parallel(path: Path) -> Table:
    """A column for each file, named by the last part of its name.

    Args:
        path: what the names begin with, such as `train` or `corpus/train`.

    Raises:
        UserError: fewer than two files, or files of unlike numbers of lines.
    """
    files = {
        file.name.removesuffix(".gz").rpartition(".")[2]: file
        for file in sorted(path.parent.glob(f"{path.name}.*"))
        if file.name.removesuffix(".gz").removeprefix(f"{path.name}.").isalnum()
    }
    if len(files) < 2:
        raise UserError(f"there are no two files {path}.en, {path}.de or the like, one text a line in each")
    table = {name: read_lines(file) for name, file in files.items()}
    counts = {name: len(lines) for name, lines in table.items()}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{path.name}.{name} has {count}" for name, count in counts.items())
        raise UserError(f"{path.parent}: line by line these are not of one text: {said} lines")
    return table
