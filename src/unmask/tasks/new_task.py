"""A task made of one table: which column is what, three splits, and the TOML file."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unmask import hub
from unmask.errors import UserError
from unmask.settings import nearest
from unmask.tasks.kinds.kind import as_number, is_empty, text_of
from unmask.tasks.kinds.regression import step_for
from unmask.tasks.tables import check_columns, column_names, read_values
from unmask.tasks.task import SPLITS, Split

#: What a column of labels is often called.
LABEL_NAMES = (
    "label",
    "labels",
    "class",
    "category",
    "target",
    "sentiment",
    "intent",
    "topic",
    "score",
    "rating",
)
#: What a column of row numbers is often called: no text to read. "": pandas writes its index without a name.
NUMBER_NAMES = ("", "id", "idx", "index", "unnamed: 0")
#: A column with at most so many different values, and on average so many rows each, holds labels.
MOST_LABELS, ROWS_A_LABEL = 100, 4
#: Where the column is called so.
ROWS_A_NAMED_LABEL = 2
KINDS = ("classification", "regression", "text-to-text")


@dataclass(frozen=True)
class NewTask:
    """What was made.

    Attributes:
        path: the TOML file.
        kind: the task's.
        source, target: its columns.
        rows: split → how many rows.
        labels: label → rows; none where the target is any text.
        dropped: rows with an empty column.
        ignored: columns that are taken for numbers of rows.
    """

    path: Path
    kind: str
    source: tuple[str, ...]
    target: str
    rows: dict[Split, int]
    labels: dict[str, int]
    dropped: int
    ignored: tuple[str, ...]


def new_task(
    path: Path,
    out: Path,
    *,
    source: Sequence[str] = (),
    target: str | None = None,
    kind: str | None = None,
    held_out: float = 0.1,
) -> NewTask:
    """Make a task of a table: `out/task.toml` with `train.csv`, `validation.csv` and `test.csv` beside it.

    Which split a row is in depends on its source and nothing else, so equal sources are in one split, and a table that
    has grown keeps its rows where they were. A label that would be missing in training has its rows moved there.

    Args:
        path: CSV, TSV, JSON lines or Parquet, or a directory of texts in sub-directories named by their labels.
        out: a directory that is not there yet.
        source, target: columns; default: of two columns, beside numbers of rows, the one with labels is the target.
        kind: one of `KINDS`; a pair of texts makes pair-classification of classification. Default: numbers that are
            hardly ever the same are regression, few different values are classification, anything else text-to-text.
        held_out: share of the rows in validation, and again in test.

    Raises:
        UserError: a table that cannot be read, columns that cannot be guessed or are not there, too few rows, `out`
            that is there.
    """
    if not 0 < held_out < 0.5:
        raise UserError(f"held_out is {held_out}: give a share above 0 and below 0.5")
    if kind not in (None, *KINDS):
        raise UserError(f"no kind {kind!r}{nearest(str(kind), KINDS)}")
    if out.exists():
        raise UserError(f"{out} is there already: name another directory with --out, or delete it")
    if not out.parent.is_dir():
        raise UserError(f"{out} cannot be made: there is no directory {out.parent}")
    named = [*source, *([] if target is None else [target])]
    for column in named:
        if named.count(column) > 1:
            raise UserError(f"the column {column!r} is named twice by --source and --target")
    sources, wanted, ignored = _columns(path, source, target)
    read = list(zip(*read_values(path, [*sources, wanted]), strict=True))
    whole = [row for row in read if not any(map(is_empty, row))]
    if not whole:
        raise UserError(f"{path}: every row has an empty column")
    rows = [
        tuple(
            text_of(value, column, str(path)) for value, column in zip(row, [*sources, wanted], strict=True)
        )
        for row in whole
    ]
    found = kind or _kind([row[-1] for row in rows], wanted)
    strange = [row[-1] for row in rows if found == "regression" and as_number(row[-1]) is None]
    if strange:
        raise UserError(f"{path}: regression learns numbers, and {wanted!r} holds {strange[0]!r}")
    labels = Counter(row[-1] for row in rows) if found == "classification" else Counter[str]()
    if target is None and wanted in labels:
        raise UserError(
            f"{path}: the first line has to name the columns, and {wanted!r} there is also one of the labels: "
            "add a line such as text,label (or, if it is a name, give it by --target)"
        )
    if found == "classification" and len(labels) < 2:
        raise UserError(f"{path}: every row has the label {rows[0][-1]!r} in {wanted!r}: nothing to learn")
    splits = _split(rows, held_out, labels)
    if not all(splits.values()):
        count = "one row is" if len(rows) == 1 else f"{len(rows)} rows are"
        raise UserError(f"{path}: {count} too few for three splits: add rows, or raise --held-out")
    if found == "classification" and len(sources) == 2:
        found = "pair-classification"
    _write(out, found, sources, wanted, splits)
    counts = {name: len(some) for name, some in splits.items()}
    return NewTask(
        out / "task.toml",
        found,
        sources,
        wanted,
        counts,
        dict(labels.most_common()),
        len(read) - len(whole),
        ignored,
    )


def _columns(
    path: Path, source: Sequence[str], target: str | None
) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """What is read, what is answered, and what is left out as numbers of rows."""
    there = column_names(path)
    check_columns(path, (*source, *([] if target is None else [target])), there)
    ignored = tuple(
        column
        for column in there
        if column.strip().lower() in NUMBER_NAMES and column not in source and column != target
    )
    there = [column for column in there if column not in ignored]
    if not (source and target):
        check_columns(path, there, there)
    if target is None:
        rest = [column for column in there if column not in source]
        named = [column for column in rest if column.lower() in LABEL_NAMES]
        if len(rest) == 1:
            target = rest[0]
        elif len(named) == 1:
            target = named[0]
        elif len(rest) == 2 and not source:
            # Labels repeat; of two columns of texts the second is written.
            first, second = (len(set(map(str, values))) for values in read_values(path, rest))
            target = rest[0] if first < second else rest[1]
        else:
            raise UserError(
                f"{path} has the columns {', '.join(map(repr, there))}: say which to read and which to answer, with "
                "--source and --target"
            )
    rest = [column for column in there if column != target]
    if not source and len(rest) > 2:
        raise UserError(
            f"{path} has the columns {', '.join(map(repr, rest))} to read: say which, with --source"
        )
    sources = tuple(source) or tuple(rest)
    if not sources:
        beside = f" beside {listed_columns(ignored)}" if ignored else ""
        raise UserError(
            f"{path} has one column, {target!r}{beside}: there must be one to read and one to answer"
        )
    return sources, target, () if source else ignored


def listed_columns(columns: Sequence[str]) -> str:
    """Columns for a message."""
    return " and ".join(repr(column) if column else "one without a name" for column in columns)


def _kind(targets: Sequence[str], column: str) -> str:
    different = len(set(targets))
    rows_a_label = ROWS_A_NAMED_LABEL if column.lower() in LABEL_NAMES else ROWS_A_LABEL
    if all(as_number(text) is not None for text in targets) and different * ROWS_A_LABEL > len(targets):
        return "regression"
    return "classification" if different <= min(MOST_LABELS, len(targets) / rows_a_label) else "text-to-text"


def _split(
    rows: Sequence[tuple[str, ...]], held_out: float, labels: Counter[str]
) -> dict[Split, list[tuple[str, ...]]]:
    splits: dict[Split, list[tuple[str, ...]]] = {"train": [], "validation": [], "test": []}
    for row in rows:
        digest = hashlib.sha256(json.dumps(row[:-1]).encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        split: Split = "test" if place < held_out else "validation" if place < 2 * held_out else "train"
        splits[split].append(row)
    missing = set(labels) - {row[-1] for row in splits["train"]}
    for split in ("validation", "test"):
        splits["train"] += [row for row in splits[split] if row[-1] in missing]
        splits[split] = [row for row in splits[split] if row[-1] not in missing]
    return splits


def _write(
    out: Path,
    kind: str,
    sources: Sequence[str],
    target: str,
    splits: dict[Split, list[tuple[str, ...]]],
) -> None:
    def quoted(value: Any) -> str:
        # A TOML basic string is a JSON string, of names that have no control characters.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

    lines = [
        f"name = {quoted(out.name)}",
        f"kind = {quoted(kind)}",
        f"source = {quoted(sources[0] if len(sources) == 1 else list(sources))}",
        f"target = {quoted(target)}",
        *(f"{split} = {quoted(f'{split}.csv')}" for split in SPLITS),
    ]
    if kind == "regression":
        numbers = [float(row[-1]) for row in splits["train"]]
        if min(numbers) < max(numbers):
            lines += [f"step = {step_for(min(numbers), max(numbers))!r}  # of what a T5 writes"]
    with hub.atomic_directory(out) as directory:
        (directory / "task.toml").write_text("\n".join([*lines, ""]), encoding="utf-8")
        for split, rows in splits.items():
            text = io.StringIO(newline="")
            csv.writer(text).writerows([(*sources, target), *rows])
            (directory / f"{split}.csv").write_text(text.getvalue(), encoding="utf-8", newline="")
