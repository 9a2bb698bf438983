"""Flags from the fields of a dataclass."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, get_type_hints

from cyclopts import Parameter


def optional_flags(kind: type[Any], module: str, **types: Any) -> type[Any]:
    """A dataclass of the same fields, in which each may be left out: it is None then.

    Args:
        kind: a dataclass, its attributes documented.
        module: the name of the module that declares the command.
        types: of fields whose own type cannot be read from a command line, or whose flag has another name.
    """
    hints = get_type_hints(kind) | types
    flags = dataclasses.make_dataclass(
        f"{kind.__name__}Flags",
        [
            (
                field.name,
                Annotated[hints[field.name] | None, Parameter(show_default=False)],
                dataclasses.field(default=None, kw_only=True),
            )
            for field in dataclasses.fields(kind)
        ],
        namespace={"__doc__": kind.__doc__},
    )
    # What make_dataclass says ("types") marks standard-library types, which cyclopts leaves alone.
    flags.__module__ = module
    return flags


def given(flags: Any) -> dict[str, Any]:
    """The flags that were given, by name."""
    return {} if flags is None else {name: value for name, value in vars(flags).items() if value is not None}
