"""From a TOML file to a typed dataclass: one way to read what people write by hand."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from unmask.errors import UserError

T = TypeVar("T")

#: What the types with items are called in errors.
_COLLECTIONS: dict[Any, str] = {dict: "a table", list: "a list", tuple: "a list"}


def read_toml(path: Path) -> dict[str, Any]:
    """The table of a TOML file.

    Raises:
        UserError: the file is missing, unreadable, not UTF-8 or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None


def from_table(kind: type[T], table: Mapping[str, Any], where: str) -> T:
    """An instance of the dataclass `kind` from a table of its fields.

    Raises:
        UserError: an unknown key (with the nearest known one), a missing key, a value of the wrong type.
    """
    assert dataclasses.is_dataclass(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    types_of = get_type_hints(kind)
    for key, value in table.items():
        if key not in fields:
            raise UserError(f"{where}: unknown key {key!r}{nearest(key, fields)}")
        if not _fits(value, types_of[key]):
            raise UserError(f"{where}: {key} is {value!r}, it must be {_describe(types_of[key])}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in table:
            raise UserError(f"{where}: the key {name!r} is missing")
    values = {key: _convert(value, types_of[key]) for key, value in table.items()}
    try:
        return kind(**values)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def check_types(instance: Any) -> None:
    """Raises:
    UserError: a field of a dataclass holds a value that is not of its type.
    """
    types_of = get_type_hints(type(instance))
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if not _fits(value, types_of[field.name]):
            raise UserError(f"{field.name} is {value!r}, it must be {_describe(types_of[field.name])}")


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the list of what is known, to end an error line with."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names)}"


def _options(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _fits(value: Any, kind: Any) -> bool:
    return any(_fits_one(value, option) for option in _options(kind))


def _fits_one(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) in (tuple, list):
        return isinstance(value, list | tuple) and all(_fits(item, get_args(kind)[0]) for item in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_fits(item, get_args(kind)[1]) for item in value.values())
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is Path:
        return isinstance(value, str | Path)
    return isinstance(value, kind)


def _convert(value: Any, kind: Any) -> Any:
    for option in _options(kind):
        if _fits_one(value, option):
            if get_origin(option) is dict:
                return {key: _convert(item, get_args(option)[1]) for key, item in value.items()}
            if option in (float, Path):
                return option(value)
            return tuple(value) if get_origin(option) is tuple else value
    return value


def _describe(kind: Any) -> str:
    names: list[str] = []
    for option in _options(kind):
        if get_origin(option) is Literal:
            names.extend(repr(choice) for choice in get_args(option))
        elif option is not type(None):
            name = getattr(option, "__name__", str(option))
            names.append(_COLLECTIONS.get(get_origin(option), name))
    return " or ".join(names)
