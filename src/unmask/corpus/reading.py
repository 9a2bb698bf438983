"""Read documents from text files, JSON lines, directories and globs, one at a time."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob, has_magic
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import IO, Any

from unmask.errors import UserError


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a corpus: what its source calls it, and its text with `\\n` between lines."""

    id: str
    text: str


def read_documents(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]], *, text_column: str = "text"
) -> Iterator[Document]:
    """The documents of files, directories and globs, in order, holding one in memory at a time.

    `.txt` is one document a file; `.jsonl` is one a line, with its text in `text_column` and its name in `id`
    where there is one. Both may be gzipped (`.txt.gz`, `.jsonl.gz`). Directories are read recursively, sorted
    by path, passing over hidden files and files of other kinds. A file reached twice is read once. Documents
    of white space alone are passed over.

    Args:
        paths: a file, directory or glob, or several of them. Paths are looked up at the call, read later.
        text_column: the key of a JSON object that holds the text.

    Raises:
        UserError: at the call, a path that does not exist or holds nothing that can be read; during the
            iteration, a file that is damaged, not UTF-8 or not JSON lines, a missing column, or no document
            at all. Names the file, and the line or byte.
    """
    given = [paths] if isinstance(paths, str | PathLike) else list(paths)
    files = list(dict.fromkeys(chain.from_iterable(_files(path) for path in given)))
    if not files:
        raise UserError("no input was given: name files, directories or globs to read documents from")
    return _documents(files, text_column)


def _documents(files: list[Path], text_column: str) -> Iterator[Document]:
    is_empty = True
    for file in files:
        for document in _READERS[_kind(file)](file, text_column):
            if document.text.strip():
                is_empty = False
                yield document
    if is_empty:
        more = f" (and {len(files) - 1} more)" if len(files) > 1 else ""
        raise UserError(f"no document has any text in {files[0]}{more}")


def _files(path: str | PathLike[str]) -> list[Path]:
    place = Path(path).expanduser()
    if place.is_file():
        if _kind(place) not in _READERS:
            raise UserError(f"{place} is none of {_KINDS}: convert or rename it")
        return [place]
    if place.is_dir():
        found = _inside(place)
    elif has_magic(str(place)) and not place.exists():
        # pathlib's own glob refuses absolute patterns.
        matches = [Path(match) for match in sorted(glob(str(place), recursive=True))]  # noqa: PTH207
        found = [file for match in matches for file in (_inside(match) if match.is_dir() else [match])]
        found = [file for file in found if _kind(file) in _READERS]
    else:
        raise UserError(f"{place} {'is neither file nor directory' if place.exists() else 'does not exist'}")
    if not found:
        raise UserError(f"{place} has no {_KINDS} file: nothing to read")
    return found


def _inside(directory: Path) -> list[Path]:
    """The input files anywhere under a directory, sorted, without hidden ones."""
    return sorted(
        file
        for file in directory.rglob("*")
        if _kind(file) in _READERS
        and not any(part.startswith(".") for part in file.relative_to(directory).parts)
        and file.is_file()
    )


def _kind(file: Path) -> str:
    return Path(file.name.lower().removesuffix(".gz")).suffix


def _read_txt(file: Path, text_column: str) -> Iterator[Document]:
    del text_column
    with _opened(file) as stream:
        yield Document(str(file), _decoded(stream.read(), f"{file}"))


def _read_jsonl(file: Path, text_column: str) -> Iterator[Document]:
    with _opened(file) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                where = f"{file}:{number}"
                fields = _json_object(_decoded(line, where), where)
                name = fields.get("id")
                yield Document(where if name is None else str(name), _text_of(fields, text_column, where))


_READERS: dict[str, Callable[[Path, str], Iterator[Document]]] = {".txt": _read_txt, ".jsonl": _read_jsonl}
_KINDS = ".txt, .jsonl, .txt.gz, .jsonl.gz"


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    try:
        opened: IO[bytes] = gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb")  # type: ignore[assignment]  # noqa: SIM115
        with opened as stream:
            yield stream
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} cannot be read: {error}") from None


def _decoded(content: bytes, where: str) -> str:
    body = content.removeprefix(codecs.BOM_UTF8)
    try:
        return body.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        position = error.start + len(content) - len(body)
        raise UserError(
            f"{where}: byte 0x{content[position]:02x} at position {position} is not UTF-8; "
            "convert the file to UTF-8"
        ) from None


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise UserError(f'{where} is not a JSON object: each line must be one, as in {{"text": …}}')
    return fields


def _text_of(fields: dict[str, Any], column: str, where: str) -> str:
    if column not in fields:
        raise UserError(f"{where} has no column {column!r}; it has {', '.join(map(repr, fields)) or 'none'}")
    text = fields[column]
    if not isinstance(text, str):
        raise UserError(f"{where}: column {column!r} holds {type(text).__name__}, not text")
    # JSON can spell half a surrogate pair; such a text has no UTF-8 form, and no tokenizer takes it.
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{where}: column {column!r} has a lone surrogate at {error.start}") from None
    return text.replace("\r\n", "\n")
