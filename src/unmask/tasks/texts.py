"""Texts to work on, one at a time however large the file: lines, JSON lines, CSV, TSV, Parquet, standard input."""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import json
import math
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Protocol

from unmask.errors import UserError
from unmask.tasks.formats.files import separator

#: What is read where no column is named.
COLUMN = "text"
#: Standard input, as a path.
STDIN = Path("/dev/stdin")


class Texts(Protocol):
    """Some texts, in order."""

    @property
    def name(self) -> str:
        """What messages call them."""

    @property
    def again(self) -> bool:
        """Whether they can be read more than once."""

    def __iter__(self) -> Iterator[str]: ...


@dataclass(frozen=True)
class GivenTexts:
    """Texts that are in memory already."""

    texts: Sequence[str]
    name: str = "the texts given"
    again: bool = True

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)


@dataclass(frozen=True)
class TextFile:
    """The texts of a file, read as they are asked for: what is held is one line or row of it.

    `.txt` is one text a line (an empty line is an empty text); `.jsonl` and `.ndjson` one object a line;
    `.csv` and `.tsv` have a header; all these may be gzipped (`.gz`). `.parquet` is read in batches of rows.

    Attributes:
        path: the file.
        column: which key or column holds the text.
        relative: where the file lies below the directory that was named, for results of the same layout.
    """

    path: Path
    column: str = COLUMN
    relative: Path = Path()

    @property
    def name(self) -> str:
        return "standard input" if self.path == STDIN else str(self.path)

    @property
    def again(self) -> bool:
        return self.path != STDIN

    @property
    def has_columns(self) -> bool:
        return kind_of(self.path) != ".txt"

    def __iter__(self) -> Iterator[str]:
        """Raises:
        UserError: a file that is damaged, not UTF-8, not what its name says, or has no such column; a row
            without a text. Names the line or row.
        """
        reader = READERS.get(kind_of(self.path))
        if reader is None:
            raise _unknown_kind(self.path)
        for where, (value,) in reader(self.path, (self.column,)):
            yield _text(value, where, self.column)


@dataclass(frozen=True)
class TextFiles:
    """The texts of several files, one file after another."""

    files: Sequence[TextFile]

    @property
    def name(self) -> str:
        more = f" (and {len(self.files) - 1} more)" if len(self.files) > 1 else ""
        return f"{self.files[0].name}{more}"

    @property
    def again(self) -> bool:
        return all(file.again for file in self.files)

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self.files)


@dataclass(frozen=True)
class Survey:
    """What a first reading found.

    Attributes:
        count: texts.
        digest: SHA-256 over all of them in their order.
    """

    count: int
    digest: str


def survey(texts: Texts) -> Survey:
    """Read all texts once: their number, and whether they can be read to the end.

    Raises:
        UserError: what reading them raises; no text at all.
    """
    digest, count = hashlib.sha256(), 0
    for text in texts:
        data = text.encode()
        digest.update(f"{len(data)} ".encode())
        digest.update(data)
        count += 1
    if not count:
        raise UserError(f"{texts.name} is empty: there is nothing to do")
    return Survey(count, digest.hexdigest())


def find_texts(
    paths: Iterable[Path], column: str | None = None, *, results: Path | None = None
) -> list[TextFile]:
    """The files of paths: files as they are, directories searched at every depth, sorted, hidden files left out.

    Args:
        column: see `TextFile`; None: "text" where there are columns.
        results: where the results will be; if that is a directory inside of an input, nothing in it is one.

    Raises:
        UserError: a path that is not there, that holds nothing that can be read, or of an unknown kind; a
            column for files that have none; results in the place of an input.
    """
    found: list[TextFile] = []
    for path in paths:
        place = STDIN if str(path) == "-" else path.expanduser()
        if place.is_dir():
            _check_apart(place, results)
            inside = [
                file
                for file in sorted(place.rglob("*"))
                if _is_input(file.relative_to(place), file) and not _is_inside(file, results)
            ]
            if not inside:
                raise UserError(f"{place} has no file that ends in {_KINDS}: there is nothing to read")
            found += [TextFile(file, column or COLUMN, file.relative_to(place)) for file in inside]
            continue
        if not place.exists():
            raise UserError(f"{place} does not exist: inputs are files or directories; give a text by --text")
        if kind_of(place) not in READERS:
            raise _unknown_kind(place)
        found.append(TextFile(place, column or COLUMN, Path(place.name)))
    for file in found:
        _check_apart(file.path, results)
    if column is not None and not any(file.has_columns for file in found):
        raise UserError(
            f"column {column!r} cannot be looked up in {found[0].name}, which has lines, no columns"
        )
    return found


def kind_of(path: Path) -> str:
    """The suffix of a file that says how to read it, in lower case and without `.gz`."""
    return ".txt" if path == STDIN else Path(path.name.lower().removesuffix(".gz")).suffix


def _check_apart(place: Path, results: Path | None) -> None:
    """Raises:
    UserError: the results would take an input's place.
    """
    if results is not None and results.exists() and results.samefile(place):
        raise UserError(f"{place} is an input: give another --out")


def _is_inside(file: Path, directory: Path | None) -> bool:
    return directory is not None and directory.absolute() in file.absolute().parents


def _unknown_kind(path: Path) -> UserError:
    return UserError(f"{path} is of an unknown kind: a name ends in {_KINDS}")


def _is_input(relative: Path, file: Path) -> bool:
    hidden = any(part.startswith(".") for part in relative.parts)
    return kind_of(file) in READERS and not hidden and file.is_file()


# -- readers ----------------------------------------------------------------------------------------------


#: Where a row is, for messages, and its values.
Values = tuple[str, tuple[Any, ...]]


def _read_lines(path: Path, columns: Sequence[str]) -> Iterator[Values]:
    del columns
    for number, line in _lines(path):
        yield f"{path}, line {number}", (line.removesuffix("\n").removesuffix("\r"),)


def _read_json(path: Path, columns: Sequence[str]) -> Iterator[Values]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}: one JSON object a line is read, not {type(row).__name__}")
        for column in columns:
            if column not in row:
                raise _no_column(where, column, list(row))
        yield where, tuple(row[column] for column in columns)


def _read_csv(path: Path, columns: Sequence[str]) -> Iterator[Values]:
    # A text may be longer than the module's 128 KiB.
    csv.field_size_limit(sys.maxsize)
    lines = (line for _, line in _lines(path))
    first = list(islice(lines, 1))
    delimiter = "\t" if kind_of(path) == ".tsv" else separator("".join(first))
    rows = csv.reader(chain(first, lines), delimiter=delimiter, strict=True)
    try:
        header = next(rows, None)
        if header is None:
            return
        for column in columns:
            if header.count(column) != 1:
                raise _no_column(str(path), column, header)
        places = [header.index(column) for column in columns]
        for row in rows:
            if len(row) == len(header):
                yield f"{path}, line {rows.line_num}", tuple(row[place] for place in places)
            elif row:
                raise UserError(
                    f"{path}, line {rows.line_num}: {len(row)} fields, the header has {len(header)} columns"
                )
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: {error}") from None


def _read_parquet(path: Path, columns: Sequence[str]) -> Iterator[Values]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
        for column in columns:
            if names.count(column) != 1:
                raise _no_column(str(path), column, names)
        number = 0
        for batch in file.iter_batches(batch_size=256, columns=list(columns)):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", tuple(row[column] for column in columns)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as Parquet: {' '.join(str(error).split())[:300]}") from None


#: Suffix → a reader of some columns.
READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[Values]]] = {
    ".txt": _read_lines,
    ".jsonl": _read_json,
    ".ndjson": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}
_KINDS = ".txt, .jsonl, .ndjson, .csv, .tsv (each also .gz) or .parquet"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines, with their ends; only a line feed ends one."""
    with _opened(path) as stream:
        for number, line in enumerate(stream, start=1):
            content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            try:
                yield number, content.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}, line {number}: byte 0x{content[error.start]:02x} is not UTF-8; "
                    "save the file as UTF-8"
                ) from None


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if path == STDIN:
        yield sys.stdin.buffer
        return
    try:
        opened: Any = gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")  # noqa: SIM115
        with opened as stream:
            yield stream
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _no_column(where: str, column: str, there: Sequence[str]) -> UserError:
    if column in there:
        return UserError(f"{where} has {there.count(column)} columns named {column!r}")
    listed = ", ".join(repr(name) for name in there[:20]) or "none"
    return UserError(f"{where} has no column {column!r}: there are {listed}; name one with --column")


def _text(value: Any, where: str, column: str) -> str:
    if isinstance(value, str):
        # JSON can spell half a surrogate pair; such a text has no UTF-8 form, and no tokenizer takes it.
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise UserError(f"{where}: {column!r} has a lone surrogate at {error.start}") from None
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise UserError(f"{where}: the column {column!r} has no value")
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    raise UserError(f"{where}: the column {column!r} holds {type(value).__name__}, not a text or a number")
