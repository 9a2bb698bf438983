"""Lines drawn by matplotlib as an SVG that can stand inside a page, light or dark."""

from __future__ import annotations

import io
import math
import re
import warnings
from typing import TYPE_CHECKING, Any

from unmask.report.blocks import Curves

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Told apart without colour vision, and at least 3:1 (WCAG 2.2, 1.4.11) against the page in either scheme.
PALETTE = ("#2f74c0", "#c8501e", "#2a8a5c", "#a04fb0", "#8a7420", "#cc4470")
_DASHES = ("-", "--", "-.", ":")
# matplotlib knows no `currentColor`: what has this colour takes the colour of the page's text afterwards.
_INK = "#0a0b0c"
_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "unmask",  # ids inside the file are random without one
    "svg.fonttype": "none",  # text stays text: searchable, and readable aloud
    "text.parse_math": False,  # a name may hold dollar signs
    "font.size": 11.0,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _INK,
    "grid.alpha": 0.15,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def draw_curves(curves: Curves, prefix: str) -> str:
    """The figure as one `<svg>` element, the same bytes for the same input.

    Args:
        curves: what to draw.
        prefix: put before every id in the element, so that two figures can share a page.
    """
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # The look is ours, whatever the user's matplotlibrc says.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        # The browser has the glyphs that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="Data has no positive values")
        buffer = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        _figure(curves).savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    return _for_page(buffer.getvalue(), curves.caption, prefix)


def _figure(curves: Curves) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.add_subplot()
    lines = []
    for number, series in enumerate(curves.series):
        (line,) = axes.plot(
            series.x,
            series.y,
            color=PALETTE[number % len(PALETTE)],
            linestyle=_DASHES[number % len(_DASHES)],
            linewidth=1.8,
            marker="o" if len(series.x) == 1 else None,  # a line of one point is invisible
        )
        lines.append(line)
    if curves.log_x:
        axes.set_xscale("log", nonpositive="mask")
        _plain_numbers(axes.xaxis, axes.get_xlim())
    if curves.log_y:
        axes.set_yscale("log", nonpositive="mask")
        _plain_numbers(axes.yaxis, axes.get_ylim())
    axes.set_xlabel(curves.x_label)
    axes.set_ylabel(curves.y_label)
    if len(lines) > 1:
        # Below the axes, so that it never hides a line.
        names = [series.name for series in curves.series]
        figure.legend(lines, names, loc="outside lower center", ncols=min(3, len(lines)))
    return figure


def _plain_numbers(axis: Axis, limits: tuple[float, float]) -> None:
    """0.1, 0.2, 0.5, 1 … along a logarithmic axis: a loss often spans less than one power of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter

    decades = math.log10(limits[1] / limits[0])
    steps = range(1, 10) if decades < 1 else (1, 2, 5) if decades < 3 else (1,)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _for_page(svg: str, caption: str, prefix: str) -> str:
    """The figure's file as an element: no size (the page decides), no fonts (the page's), no style sheet
    (it would hold for the whole page), no namespaces (HTML knows SVG)."""
    from markupsafe import escape

    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    view_box = re.search(r'viewBox="[^"]*"', svg)
    assert view_box is not None
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    # Inside tags alone: a name in the figure may read like any of this.
    body = re.sub(r"<[^>]*>", lambda tag: _tag_for_page(tag[0], prefix), body)
    return f'<svg role="img" aria-label="{escape(caption)}" {view_box[0]}>{body}</svg>'


def _tag_for_page(tag: str, prefix: str) -> str:
    tag = re.sub(r" ?font-family: [^;\"]*;?", "", tag)
    tag = tag.replace("xlink:href=", "href=").replace(_INK, "currentColor")
    return re.sub(r'(\bid="|url\(#|href="#)', lambda match: match[0] + prefix, tag)
