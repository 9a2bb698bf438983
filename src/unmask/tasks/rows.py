"""Rows of a task from its files."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from unmask.errors import UserError
from unmask.tasks.kinds.kind import Row, is_empty, listed, text_of
from unmask.tasks.tables import read_values
from unmask.tasks.task import Split, Task

logger = logging.getLogger("unmask")


def read_rows(task: Task, split: Split, *, grouped: bool = False) -> list[Row]:
    """The rows of a split, in the file's order.

    Args:
        task: the task.
        split: which of its files.
        grouped: for judging outputs, rows of one source become one row with several references, in the
            place of the first, where the kind has such, and have the values of the task's `slices` columns. Default:
            every row by itself, as in training.

    Raises:
        UserError: what `unmask.tasks.tables.read_values` raises; a value is missing or does not fit (says the first
            such row).
    """
    rows, dropped = list[Row](), 0
    for number, named in raw_rows(task, split, slices=grouped):
        needed = {name: named[name] for name in _columns(task)}
        if task.unanswerable:
            needed[task.target] = "none"
        if task.drop_empty and any(map(is_empty, needed.values())):
            dropped += 1
        else:
            rows.append(row_of(task, split, number, named))
    if dropped:
        logger.warning("%s: %d rows have an empty column and are left out", task.file(split), dropped)
    if not rows:
        raise UserError(f"{task.file(split)}: every row has an empty column")
    return _group(rows) if grouped and task.its_kind.grouped else rows


def raw_rows(task: Task, split: Split, *, slices: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """The values of a split's rows by the task's names of their columns, each with its number, from 1.

    Args:
        slices: those of the `slices` columns too.

    Raises:
        UserError: what `unmask.tasks.tables.read_values` raises.
    """
    columns = _columns(task)
    if slices:
        columns += [column for column in task.slices if column not in columns]
    names = [task.columns.get(column, column) for column in columns]
    values = read_values(task.file(split), names, task.format)
    for number, cells in enumerate(zip(*values, strict=True), start=1):
        yield number, dict(zip(columns, cells, strict=True))


def _columns(task: Task) -> list[str]:
    """Those that a row needs."""
    return [*task.its_kind.columns(task), *filter(None, (task.target, task.group))]


def row_of(task: Task, split: Split, number: int, values: dict[str, Any]) -> Row:
    """One row.

    Raises:
        UserError: a value is missing or does not fit.
    """
    where = f"{task.file(split)}, row {number}"
    row = task.its_kind.row(task, number, values, where)
    if task.group:
        row = replace(row, group=text_of(values[task.group], task.group, where))
    if task.slices and all(column in values for column in task.slices):
        parts = (text_of(values[column], column, where, empty=True) for column in task.slices)
        row = replace(row, slices=tuple(parts))
    return row


def _group(rows: Iterable[Row]) -> list[Row]:
    groups: dict[tuple[str, ...], Row] = {}
    for row in rows:
        first = groups.get(row.sources)
        groups[row.sources] = (
            row if first is None else replace(first, references=first.references + row.references)
        )
    return list(groups.values())


def check_labels(task: Task, split: Split, rows: Sequence[Row], labels: Sequence[str]) -> None:
    """Raises:
    UserError: a row has a label that is none of these; names the first.
    """
    known = set(labels)
    seen = "the task has no label" if task.label_names else "no training row has the label"
    for row in rows:
        if row.target not in known:
            raise UserError(
                f"{task.file(split)}, row {row.number}: {seen} {row.target!r} (known are {listed(labels)})"
            )
