"""Pairs of texts to measure a model on."""

from __future__ import annotations

from pathlib import Path

from unmask.errors import UserError
from unmask.tasks.rows import read_columns, read_rows
from unmask.tasks.task import load_task


def read_pairs(
    path: Path, *, source: str | None = None, target: str | None = None, limit: int | None = None
) -> tuple[list[str], list[str]]:
    """Sources and targets of a file, or of a text-to-text task's test rows (else its validation rows).

    Args:
        path: a file of rows (.jsonl, .csv, .tsv, .parquet), or a task's .toml.
        source, target: the columns; None: "source" and "target". A task knows its own.
        limit: at most so many pairs, spread over the whole; None: all.

    Raises:
        UserError: a file that cannot be read, columns that it does not have, a task of another kind, columns
            named for a task.
    """
    if path.suffix == ".toml":
        if source is not None or target is not None:
            raise UserError(f"{path} is a task, which names its columns itself: leave yours out")
        found = _of_task(path)
    else:
        sources, targets = read_columns(path, [source or "source", target or "target"])
        found = sources, targets
    return _spread(found[0], limit), _spread(found[1], limit)


def _of_task(path: Path) -> tuple[list[str], list[str]]:
    task = load_task(path)
    if task.kind != "text-to-text":
        raise UserError(f"task {task.name!r} is {task.kind}: pairs of texts come from text-to-text tasks")
    rows = read_rows(task, "test" if task.test else "validation")
    return [task.text(row.sources) for row in rows], [row.target for row in rows]


def _spread(texts: list[str], limit: int | None) -> list[str]:
    if limit is None or len(texts) <= limit:
        return texts
    return [texts[number * len(texts) // limit] for number in range(limit)]
