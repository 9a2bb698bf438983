"""`unmask task`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def new(
    table: Path,
    /,
    *,
    out: Path | None = None,
    source: Annotated[
        list[str] | None, Parameter(consume_multiple=True, negative="", show_default=False)
    ] = None,
    target: str | None = None,
    kind: Literal["classification", "regression", "text-to-text"] | None = None,
    held_out: float = 0.1,
) -> None:
    """Make a task of a table with a text and its label (or number, or answer) in each row: OUT/task.toml, and the rows
    split into train, validation and test beside it.

    Args:
        table: CSV, TSV, JSON lines or Parquet with a header, or a directory of texts in sub-directories named by their
            labels.
        out: the directory to make; default: one named like the table, beside it.
        source: the columns that are read; default: all but the target and numbers of rows (id, index, no name).
        target: the column that is answered; default: the one named label or the like, or of two the one whose values
            repeat.
        kind: what an answer is; default: by the target's values.
        held_out: share of the rows in validation, and again in test.
    """
    from rich.console import Console

    from unmask.tasks.new_task import listed_columns, new_task

    stem = table.name.split(".")[0] or "task"
    place = out or table.with_name(stem if not table.is_dir() else f"{stem}-task")
    made = new_task(table, place, source=source or (), target=target, kind=kind, held_out=held_out)
    counts = ", ".join(f"{count:,} {split}" for split, count in made.rows.items())
    lines = [f"{made.path}: {made.kind} of {made.target} by {' and '.join(made.source)}; rows: {counts}"]
    if made.labels:
        lines.append(
            "labels: " + ", ".join(f"{label} ({count:,})" for label, count in list(made.labels.items())[:20])
        )
    if made.ignored:
        lines.append(
            f"columns not read: {listed_columns(made.ignored)}, taken for numbers of rows (--source names what is read)"
        )
    if made.dropped:
        lines.append(f"left out: {made.dropped:,} rows with an empty column")
    console = Console()
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def list_() -> None:
    """Show the tasks that are built in, each from a directory of its files or from the Hub."""
    from rich.console import Console

    from unmask.report import Table, print_table
    from unmask.tasks.library import builtin_names, builtin_task

    tasks = [builtin_task(name) for name in builtin_names()]
    rows = [(task.name, str(task.keys["kind"]), task.about, task.hub) for task in tasks]
    print_table(
        Table("Tasks that are built in", ["name", "kind", "what it is", "on the Hub"], rows), Console()
    )
