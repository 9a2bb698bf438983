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
    path: Path,
    *,
    family: str,
    source: str | None = None,
    target: str | None = None,
    limit: int | None = None,
) -> Sample:
    """The rows of a file, or of a task's test file (else its validation file).

    Args:
        path: a file of rows (.jsonl, .csv, .tsv, .parquet), or a task's .toml.
        family: "t5" or "electra": in which form a task's rows are read.
        source: the column of texts; None: "source". A task knows its own.
        target: the column of what is wanted; None: "target", if there is one.
        limit: at most so many rows, spread over the whole; None: all.

    Raises:
        UserError: a file that cannot be read, a column that it does not have, columns named for a task.
    """
    if path.suffix == ".toml":
        if source is not None or target is not None:
            raise UserError(f"{path} is a task, which names its columns itself: leave yours out")
        whole = _of_task(path, family)
    else:
        whole = _of_file(path, source or "source", target)
    targets = None if whole.targets is None else _spread(whole.targets, limit)
    seconds = None if whole.seconds is None else _spread(whole.seconds, limit)
    return Sample(_spread(whole.sources, limit), targets, seconds)


def _of_file(path: Path, source: str, target: str | None) -> Sample:
    try:
        sources, targets = read_columns(path, [source, target or "target"])
    except UserError:
        if target is not None:
            raise
        # Without targets, unless it is something else that is wrong.
        return Sample(read_columns(path, [source])[0])
    return Sample(sources, targets)


def _of_task(path: Path, family: str) -> Sample:
    """The rows as a model of the family reads them; of an ELECTRA's targets those that are a whole text's label."""
    task = load_task(path)
    kind, rows = task.its_kind, read_rows(task, task.held_out)
    if family == "t5":
        return Sample(
            [kind.source_text(task, row) for row in rows], [kind.target_text(task, row) for row in rows]
        )
    texts = [task.segment_texts(row.sources) for row in rows]
    return Sample(
        [text[0] for text in texts],
        [row.target for row in rows] if kind.head == "label" else None,
        [text[1] for text in texts] if len(texts[0]) == 2 else None,
    )


def _spread(texts: Sequence[str], limit: int | None) -> Sequence[str]:
    if limit is None or len(texts) <= limit:
        return texts
    return [texts[number * len(texts) // limit] for number in range(limit)]
