from __future__ import annotations

import math
import re

import pytest

from unmask.report import Curves, Page, Series, render_page
from unmask.report.curves import draw_curves


def labels(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def lines(svg: str, colour: str) -> list[str]:
    return re.findall(rf'<path d="([^"]*)"[^>]*stroke: {colour}', svg)


def test_ink_follows_the_page_and_nothing_is_painted_behind() -> None:
    svg = draw_curves(Curves("c", [Series("a", [1, 2], [1, 2])], "x", "y"), "p-")
    assert "currentColor" in svg and "#0a0b0c" not in svg
    assert not re.search(r"fill: (#ffffff|white|#000000)", svg)
    assert svg.startswith("<svg ") and svg.count("<svg") == 1 and "<style" not in svg


def test_series_differ_in_dash_as_well_as_in_colour() -> None:
    series = [Series(name, [1, 2], [1, 2]) for name in "abcd"]
    svg = draw_curves(Curves("c", series, "x", "y"), "")
    styles = set(re.findall(r'style="fill: none; (stroke-dasharray: [^;]*)', svg))
    assert len(styles) == 3  # and the first one is solid
    assert [label for label in labels(svg) if label in "abcd"] == list("abcd")


def test_a_value_that_is_not_finite_leaves_a_gap() -> None:
    whole = Series("a", [1, 2, 3, 4, 5], [1, 2, 1, 2, 1])
    torn = Series("a", [1, 2, 3, 4, 5], [1, 2, math.nan, 2, 1])
    moves = [
        lines(draw_curves(Curves("c", [s], "x", "y"), ""), "#2f74c0")[0].count("M") for s in (whole, torn)
    ]
    assert moves == [1, 2]


@pytest.mark.parametrize(
    ("y", "wanted"),
    [
        ([2.1, 4.8], ["3", "4"]),
        ([0.5, 60], ["0.5", "1", "2", "5", "10", "20", "50"]),
        ([1e-4, 1e4], ["0.0001", "0.01", "1", "100", "10000"]),
    ],
)
def test_logarithmic_axes_are_labelled_with_plain_numbers(y: list[float], wanted: list[str]) -> None:
    svg = draw_curves(Curves("c", [Series("a", [0, 1], y)], "x", "y", log_y=True), "")
    assert [label for label in labels(svg) if label in wanted] == wanted


def test_logarithmic_axes_leave_out_what_is_not_positive(recwarn: pytest.WarningsRecorder) -> None:
    nothing_positive = Curves("c", [Series("a", [0, 0], [0, -1])], "x", "y", log_x=True, log_y=True)
    assert draw_curves(nothing_positive, "").startswith("<svg")
    nothing_finite = Curves("c", [Series("a", [0, 1], [math.nan, math.nan])], "x", "y", log_y=True)
    assert "–" in render_page(Page("p", [nothing_finite]))
    assert not recwarn.list


def test_a_long_run_stays_a_small_figure() -> None:
    x = range(50_000)
    svg = draw_curves(Curves("c", [Series("a", x, [5 / math.sqrt(i + 1) for i in x])], "x", "y"), "")
    assert len(svg) < 100_000


def test_scripts_that_the_drawing_font_lacks_pass_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    svg = draw_curves(Curves("c", [Series("训练", [1], [1]), Series("b", [1], [1])], "步", "y"), "")
    assert "训练" in labels(svg) and "步" in labels(svg)
    assert not recwarn.list


def test_names_that_read_like_the_files_own_markup_stay_as_they_are() -> None:
    names = ['id="a" url(#b)', "font-family: serif", "#0a0b0c"]
    svg = draw_curves(Curves("c", [Series(name, [1], [1]) for name in names], "x", "y"), "p-")
    assert [label for label in labels(svg) if label in names] == names
