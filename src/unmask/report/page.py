"""A page as one HTML file that needs nothing else: no network, no script, the same bytes each time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.hub import write_atomically
from unmask.report.blocks import Column, Curves, Page, Series, Table
from unmask.report.curves import draw_curves

if TYPE_CHECKING:
    from jinja2 import Template


def write_page(path: Path, page: Page) -> None:
    """Write the page as HTML, beside and then renamed."""
    write_atomically(path, render_page(page))


def render_page(page: Page) -> str:
    """The page as HTML. Every text in it is escaped."""
    blocks = [_for_template(number, block) for number, block in enumerate(page.blocks, start=1)]
    contents = [block for block in blocks if block["kind"] == "Heading" and block["block"].level == 2]
    return _template().render(page=page, blocks=blocks, contents=contents if len(contents) > 2 else [])


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("unmask.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source)


def _for_template(number: int, block: object) -> Mapping[str, Any]:
    """A block with what its macro needs beside it."""
    from markupsafe import Markup

    parts: dict[str, Any] = {"kind": type(block).__name__, "block": block, "id": f"part-{number}"}
    if isinstance(block, Curves):
        parts["svg"] = Markup(draw_curves(block, prefix=f"part-{number}-"))
        parts["numbers"] = _ends(block)
    return parts


def _ends(curves: Curves) -> Table:
    """The numbers of a figure that a reader would look for, for those who cannot read it off."""
    columns = [Column(name, 4, numeric=True) for name in ("first", "last", "lowest", "highest")]
    rows = [[series.name, len(series.y), *_ends_of(series)] for series in curves.series]
    return Table(curves.caption, ["series", Column("points", numeric=True), *columns], rows)


def _ends_of(series: Series) -> list[float | None]:
    finite = [float(y) for y in series.y if math.isfinite(y)]
    return [finite[0], finite[-1], min(finite), max(finite)] if finite else [None] * 4
