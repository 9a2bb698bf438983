"""What a check of a task's data found, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from unmask.report import Cell, Column, Table
from unmask.tasks.checks import DataCheck

#: Classes that the table shows.
SHOWN_CLASSES = 20


def data_tables(found: DataCheck) -> list[Table]:
    """Rows of each split; lengths where they were measured; classes where there are such."""
    tables = [_rows(found)]
    if any(check.lengths for check in found.splits):
        tables.append(_lengths(found))
    if any(check.classes for check in found.splits):
        tables.append(_classes(found))
    return tables


def _number(name: str) -> Column:
    return Column(name, numeric=True)


def _rows(found: DataCheck) -> Table:
    columns: list[Column | str] = [
        "split",
        *map(_number, ("rows", "empty", "repeated", "contradicted", "in training")),
    ]
    rows: list[Sequence[Cell]] = [
        (
            check.split,
            check.rows,
            len(check.empty),
            len(check.repeated),
            len(check.contradicted),
            None if check.split == "train" else len(found.shared.get(check.split, ())),
        )
        for check in found.splits
    ]
    return Table(f"{found.task.name}: rows", columns, rows)


def _lengths(found: DataCheck) -> Table:
    columns: list[Column | str] = ["split", "text", *map(_number, ("median", "longest", "limit", "cut"))]
    rows: list[Sequence[Cell]] = [
        (check.split, part, lengths.median, lengths.longest, lengths.limit, lengths.cut)
        for check in found.splits
        for part, lengths in check.lengths.items()
    ]
    return Table("Tokens", columns, rows)


def _classes(found: DataCheck) -> Table:
    names = list(dict.fromkeys(label for check in found.splits for label in check.classes))
    columns: list[Column | str] = ["label", *(_number(check.split) for check in found.splits)]
    rows: list[Sequence[Cell]] = [
        (name, *(check.classes.get(name, 0) for check in found.splits)) for name in names[:SHOWN_CLASSES]
    ]
    more = f" (the first {SHOWN_CLASSES} of {len(names)})" if len(names) > SHOWN_CLASSES else ""
    return Table(f"Rows of each label{more}", columns, rows)
