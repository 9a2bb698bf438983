"""Rows of a task from its files: CSV, TSV, JSON lines or Parquet, each also gzipped, all in UTF-8."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unmask.errors import UserError
from unmask.tasks.task import Split, Task

FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")


@dataclass(frozen=True)
class Row:
    """One row of a task.

    Args:
        number: which row of the file it is, from 1, a header not counted.
        sources: one text for each source column.
        references: what is wanted: one text, or, where rows were grouped by their source, all of theirs.
    """

    number: int
    sources: tuple[str, ...]
    references: tuple[str, ...]

    @property
    def target(self) -> str:
        return self.references[0]


def read_rows(task: Task, split: Split, *, grouped: bool = False) -> list[Row]:
    """The rows of a split, in the file's order.

    Args:
        task: the task.
        split: which of its files.
        grouped: for judging outputs, rows of one source become one row with several references, in the
            place of the first. Default: every row by itself, as in training.

    Raises:
        UserError: the file is missing, empty, of an unknown format, not UTF-8, or damaged; a column is
            missing (says which there are); a value is missing or no text (says the first such row).
        ValueError: classification cannot be grouped: a row has one label.
    """
    if grouped and task.kind == "classification":
        raise ValueError("rows of a classification task have one label each and are not grouped")
    *sources, targets = read_columns(task.file(split), [*task.source, task.target])
    rows = [
        Row(number, texts, (target,))
        for number, (texts, target) in enumerate(
            zip(zip(*sources, strict=True), targets, strict=True), start=1
        )
    ]
    return _group(rows) if grouped else rows


def _group(rows: Iterable[Row]) -> list[Row]:
    groups: dict[tuple[str, ...], Row] = {}
    for row in rows:
        first = groups.get(row.sources)
        groups[row.sources] = (
            row if first is None else replace(first, references=first.references + row.references)
        )
    return list(groups.values())


def labels_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """The labels of a classification task: the set of training targets, sorted.

    Raises:
        UserError: there is one only.
    """
    labels = tuple(sorted({row.target for row in rows}))
    if len(labels) == 1:
        raise UserError(f"all {len(rows)} training rows have the label {labels[0]!r}: nothing to learn")
    return labels


def check_labels(task: Task, split: Split, rows: Sequence[Row], labels: Sequence[str]) -> None:
    """Raises:
    UserError: a row has a label that no training row has; names the first.
    """
    known = set(labels)
    for row in rows:
        if row.target not in known:
            raise UserError(
                f"{task.file(split)}, row {row.number}: no training row has the label {row.target!r} "
                f"(known are {_listed(labels)})"
            )


def read_columns(path: Path, columns: Sequence[str]) -> list[list[str]]:
    """The texts of each of `columns`, in their order; numbers and truth values as they are written in JSON.

    Raises:
        UserError: as in `read_rows`.
    """
    data = _read_bytes(path)
    kind = _format(path)
    if kind == ".parquet":
        found = _parquet_columns(path, data, columns)
    else:
        _check_utf8(path, data)
        if kind in (".csv", ".tsv"):
            found = _csv_columns(path, data, columns, "\t" if kind == ".tsv" else ",")
        else:
            found = _json_columns(path, data, columns)
    if not found[0]:
        raise UserError(f"{path} holds no rows")
    return [
        [_text(path, column, number, value) for number, value in enumerate(values, start=1)]
        for column, values in zip(columns, found, strict=True)
    ]


def _format(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    if not suffixes or suffixes[-1] not in FORMATS:
        raise UserError(f"{path}: unknown format; a name ends in one of {', '.join(FORMATS)} (and .gz)")
    return suffixes[-1]


def _read_bytes(path: Path) -> bytes:
    import gzip
    import zlib

    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a directory: give a file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not data.strip():
        raise UserError(f"{path} is empty")
    return data


def _check_utf8(path: Path, data: bytes) -> None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def _csv_columns(path: Path, data: bytes, columns: Sequence[str], delimiter: str) -> list[list[Any]]:
    import pyarrow as pa
    from pyarrow import csv

    try:
        table = csv.read_csv(
            pa.BufferReader(data),
            # One block: a row may be longer than pyarrow's own. One thread: errors then name the row.
            read_options=csv.ReadOptions(use_threads=False, block_size=min(len(data) + 1, 2**31 - 1)),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            # Texts, whatever they look like: "1.0" stays "1.0", and "NA" or "null" are words.
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=True, null_values=[""]
            ),
        )
    except pa.ArrowInvalid as error:
        raise _unreadable(path, "CSV" if delimiter == "," else "TSV", error) from None
    _check_columns(path, columns, table.column_names)
    return [table.column(column).to_pylist() for column in columns]


def _parquet_columns(path: Path, data: bytes, columns: Sequence[str]) -> list[list[Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(pa.BufferReader(data))
        _check_columns(path, columns, file.schema_arrow.names)
        table = file.read(columns=list(dict.fromkeys(columns)))
        return [table.column(column).to_pylist() for column in columns]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, "Parquet", error) from None


def _json_columns(path: Path, data: bytes, columns: Sequence[str]) -> list[list[Any]]:
    # Not pyarrow's reader: it guesses types, turns texts that look like dates into dates, and refuses a
    # column with both numbers and texts.
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(io.BytesIO(data), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(
                f"{path}, line {number}: one JSON object a line is read, not {type(row).__name__}"
            )
        rows.append(row)
    _check_columns(path, columns, list(dict.fromkeys(key for row in rows for key in row)))
    return [[row.get(column) for row in rows] for column in columns]


def _check_columns(path: Path, wanted: Sequence[str], there: Sequence[str]) -> None:
    for column in wanted:
        if column not in there:
            raise UserError(f"{path} has no column {column!r}: there are {_listed(there)}")
        if there.count(column) > 1:
            raise UserError(f"{path} has {there.count(column)} columns named {column!r}")


def _text(path: Path, column: str, number: int, value: Any) -> str:
    if isinstance(value, str) and value.strip():
        return value
    if value is None or isinstance(value, str) or (isinstance(value, float) and math.isnan(value)):
        raise UserError(f"{path}, row {number}: the column {column!r} has no value")
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    raise UserError(
        f"{path}, row {number}: the column {column!r} holds {type(value).__name__}, not a text or a number"
    )


def _unreadable(path: Path, described: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(f"{path} cannot be read as {described}: {reason[:300]}")


def _listed(names: Sequence[str], most: int = 20) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + rest
