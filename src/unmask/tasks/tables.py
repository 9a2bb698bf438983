"""Columns of a file: CSV, TSV, JSON lines or Parquet, each also gzipped, all in UTF-8; or of a published format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unmask.errors import UserError
from unmask.settings import nearest
from unmask.tasks.formats import FORMATS
from unmask.tasks.formats.files import check_utf8, json_lines, read_bytes, separator
from unmask.tasks.kinds.kind import listed, text_of

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")


def read_columns(path: Path, columns: Sequence[str]) -> list[list[str]]:
    """The texts of each of `columns`, in their order; numbers and truth values as they are written in JSON.

    Raises:
        UserError: as for `read_values`; a value is missing or no text (says the first such row).
    """
    return [
        [text_of(value, column, f"{path}, row {number}") for number, value in enumerate(values, start=1)]
        for column, values in zip(columns, read_values(path, columns), strict=True)
    ]


def read_values(path: Path, columns: Sequence[str], format: str | None = None) -> list[list[Any]]:
    """The values of each of `columns`, in their order: texts, numbers, lists, None for none.

    Args:
        path: a file; a directory of text files, whose columns are text, label (the directory that the file is in) and
            name; or a pattern with `*`, whose files follow each other in the order of their names.
        columns: names; `a.b` is what a column of objects, a, has under b.
        format: one of `FORMATS`; None: by the file's name.

    Raises:
        UserError: the file is missing, empty, of an unknown format, not UTF-8, or damaged; a column is missing (says
            which there are).
    """
    if format is not None and format not in FORMATS:
        raise UserError(f"{path}: no format {format!r}{nearest(format, FORMATS)}")
    parts = [_values_of_one(file, columns, format) for file in matching(path)]
    return [[value for part in parts for value in part[place]] for place in range(len(columns))]


def column_names(path: Path) -> list[str]:
    """The columns of a file.

    Raises:
        UserError: as for `read_values`.
    """
    if path.is_dir():
        return list(FORMATS["directory"](path))
    kind, data = _suffix(path), read_bytes(path)
    if kind == ".parquet":
        return list(_parquet_file(path, data).schema_arrow.names)
    check_utf8(path, data)
    if kind in (".csv", ".tsv"):
        return list(_csv_table(path, data, (), kind).column_names)
    return list(_json_table(path))


def matching(path: Path) -> list[Path]:
    """The path itself, or the files that a pattern with `*` stands for, sorted.

    Raises:
        UserError: a pattern for nothing.
    """
    if "*" not in str(path):
        return [path]
    parts = path.parts
    first = next(number for number, part in enumerate(parts) if "*" in part)
    found = sorted(Path(*parts[:first]).glob(str(Path(*parts[first:]))))
    if not found:
        raise UserError(f"no file is named like {path}")
    return found


def _values_of_one(path: Path, columns: Sequence[str], format: str | None) -> list[list[Any]]:
    if format is not None or path.is_dir():
        found = _chosen(path, FORMATS[format or "directory"](path), columns)
    else:
        kind, data = _suffix(path), read_bytes(path)
        if kind == ".parquet":
            found = _parquet_columns(path, data, columns)
        else:
            check_utf8(path, data)
            if kind in (".csv", ".tsv"):
                table = _csv_table(path, data, columns, kind)
                check_columns(path, columns, table.column_names)
                found = [table.column(column).to_pylist() for column in columns]
            else:
                found = _chosen(path, _json_table(path), columns)
    if not found[0]:
        raise UserError(f"{path} holds no rows")
    return found


def _chosen(path: Path, table: Mapping[str, list[Any]], columns: Sequence[str]) -> list[list[Any]]:
    check_columns(path, [_outer(column, table) for column in columns], list(table))
    return [list(_inner(table[_outer(column, table)], column, table)) for column in columns]


def _outer(column: str, table: Any) -> str:
    """The column that holds another, of objects."""
    return column if column in table else column.partition(".")[0]


def _inner(values: Sequence[Any], column: str, table: Any) -> Iterator[Any]:
    keys = [] if column in table else column.split(".")[1:]
    for value in values:
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        yield value


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    if not suffixes or suffixes[-1] not in SUFFIXES:
        raise UserError(f"{path}: unknown format; a name ends in one of {', '.join(SUFFIXES)} (and .gz)")
    return suffixes[-1]


def _csv_table(path: Path, data: bytes, columns: Sequence[str], kind: str) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    try:
        return csv.read_csv(
            pa.BufferReader(data),
            # One block: a row may be longer than pyarrow's own. One thread: errors then name the row.
            read_options=csv.ReadOptions(use_threads=False, block_size=min(len(data) + 1, 2**31 - 1)),
            parse_options=csv.ParseOptions(
                delimiter="\t" if kind == ".tsv" else separator(_header(data)), newlines_in_values=True
            ),
            # Texts, whatever they look like: "1.0" stays "1.0", and "NA" or "null" are words.
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=True, null_values=[""]
            ),
        )
    except pa.ArrowInvalid as error:
        raise _unreadable(path, "CSV" if kind == ".csv" else "TSV", error, _QUOTES) from None


def _header(data: bytes) -> str:
    """The first line that is not empty."""
    return data.lstrip()[:_LONGEST_HEADER].partition(b"\n")[0].decode(errors="replace")


_LONGEST_HEADER = 1 << 16


def _parquet_file(path: Path, data: bytes) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, "Parquet", error) from None


def _parquet_columns(path: Path, data: bytes, columns: Sequence[str]) -> list[list[Any]]:
    import pyarrow as pa

    file = _parquet_file(path, data)
    names = file.schema_arrow.names
    wanted = [_outer(column, names) for column in columns]
    check_columns(path, wanted, names)
    try:
        table = file.read(columns=list(dict.fromkeys(wanted)))
        held = {name: table.column(name).to_pylist() for name in wanted}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, "Parquet", error) from None
    return [list(_inner(held[outer], column, names)) for outer, column in zip(wanted, columns, strict=True)]


def _json_table(path: Path) -> Mapping[str, list[Any]]:
    # Not pyarrow's reader: it guesses types, turns texts that look like dates into dates, and refuses a
    # column with both numbers and texts.
    rows = [row for _, row in json_lines(path)]
    names = dict.fromkeys(key for row in rows for key in row)
    return {name: [row.get(name) for row in rows] for name in names}


def check_columns(path: Path, wanted: Sequence[str], there: Sequence[str]) -> None:
    """Raises:
    UserError: a column is not there, or twice.
    """
    for column in wanted:
        if column not in there:
            raise UserError(f"{path} has no column {column!r}: there are {listed(there)}")
        if there.count(column) > 1:
            raise UserError(f"{path} has {there.count(column)} columns named {column!r}")


_QUOTES = "; a text that has the separator or a quote in it has to be in quotes, with its own quotes twice"


def _unreadable(path: Path, described: str, error: Exception, hint: str = "") -> UserError:
    reason = " ".join(str(error).split())
    return UserError(f"{path} cannot be read as {described}: {reason[:300]}{hint}")
