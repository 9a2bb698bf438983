"""Rows to measure a model on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unmask.errors import UserError
from unmask.export.cost import Sample
from unmask.tasks.rows import read_rows
from unmask.tasks.tables import read_columns
from unmask.tasks.task import load_task


def read_sample(
    path: Path, *, source: str | None = None, target: str | None = None, limit: int | None = None
) -> Sample:
    """The rows of a file, or of a task's test file (else its validation file).

    Args:
        path: a file of rows (.jsonl, .csv, .tsv, .parquet), or a task's .toml.
        source: the column of texts; None: "source". A task knows its own.
        target: the column of what is wanted; None: "target", if there is one.
        limit: at most so many rows, spread over the whole; None: all.

    Raises:
        UserError: a file that cannot be read, a column that it does not have, a classification of pairs of texts,
            columns named for a task.
    """
    if path.suffix == ".toml":
        if source is not None or target is not None:
            raise UserError(f"{path} is a task, which names its columns itself: leave yours out")
        whole = _of_task(path)
    else:
        whole = _of_file(path, source or "source", target)
    targets = None if whole.targets is None else _spread(whole.targets, limit)
    return Sample(_spread(whole.sources, limit), targets)


def _of_file(path: Path, source: str, target: str | None) -> Sample:
    try:
        sources, targets = read_columns(path, [source, target or "target"])
    except UserError:
        if target is not None:
            raise
        # Without targets, unless it is something else that is wrong.
        return Sample(read_columns(path, [source])[0])
    return Sample(sources, targets)


def _of_task(path: Path) -> Sample:
    task = load_task(path)
    rows = read_rows(task, task.held_out)
    targets = [row.target for row in rows]
    if task.kind == "text-to-text":
        return Sample([task.text(row.sources) for row in rows], targets)
    if len(task.source) > 1:
        raise UserError(f"task {task.name!r} classifies pairs of texts: measure on a file of single ones")
    return Sample([row.sources[0] for row in rows], targets)


def _spread(texts: Sequence[str], limit: int | None) -> Sequence[str]:
    if limit is None or len(texts) <= limit:
        return texts
    return [texts[number * len(texts) // limit] for number in range(limit)]
