"""What readers of formats share: a file's bytes, its lines, its JSON."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from unmask.errors import UserError

Table = Mapping[str, list[Any]]
#: A file or directory → column → values, one a row.
Format = Callable[[Path], Table]


def read_bytes(path: Path) -> bytes:
    """A file's bytes, unpacked where its name ends in `.gz`.

    Raises:
        UserError: the file is missing, a directory, empty or damaged.
    """
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


def check_utf8(path: Path, data: bytes) -> str:
    """The text of a file's bytes.

    Raises:
        UserError: they are not UTF-8; names the line.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without their ends; only a line feed ends one.

    Raises:
        UserError: as for `read_bytes` and `check_utf8`.
    """
    text = check_utf8(path, read_bytes(path)).removeprefix("\ufeff")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def separator(header: str) -> str:
    """What separates the columns of a CSV file with this first line: a comma; where it has none, a semicolon or a tab,
    as spreadsheets write it where decimals have a comma."""
    return next((one for one in (",", ";", "\t") if one in header), ",")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        UserError: as for `read_bytes` and `check_utf8`; no JSON.
    """
    try:
        return json.loads(check_utf8(path, read_bytes(path)))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error}") from None


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON lines file, each with the number of its line.

    Raises:
        UserError: as for `read_bytes` and `check_utf8`; a line that is no JSON object.
    """
    for number, line in enumerate(read_lines(path), start=1):
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
        yield number, row
