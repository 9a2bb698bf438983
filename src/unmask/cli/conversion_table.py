"""What became of a converted checkpoint's tensors, as a table."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from unmask.electra.conversion import Row


def show(rows: list[Row]) -> None:
    """Print a line for each tensor, and how many there are of each fate."""
    table = Table("tensor", "shape", "", "in the model", box=None)
    for row in rows:
        table.add_row(row.name, " × ".join(map(str, row.shape)), row.fate, "\n".join(row.into))
    console = Console(width=None if Console().is_terminal else 200)
    console.print(table)
    fates = Counter(row.fate for row in rows)
    console.print(", ".join(f"{fates[fate]} {fate}" for fate in ("used", "unused", "missing")))
