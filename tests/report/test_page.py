from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.report import (
    Column,
    Curves,
    Estimate,
    Heading,
    HeatMap,
    KeyFacts,
    Page,
    Paragraph,
    Sample,
    Samples,
    Series,
    Table,
    Token,
    TokenMap,
    render_page,
    write_page,
)
from unmask.report.curves import PALETTE

NASTY = "<script>alert('x')</script> & \"quotes\" $5_{x}$ [b]"

PAGE = Page(
    f"Report {NASTY}",
    [
        Paragraph(f"About {NASTY}"),
        Heading("Scores"),
        KeyFacts([("steps", "1,000"), (NASTY, NASTY)]),
        Table(
            f"Test set {NASTY}",
            ["system", Column("BLEU", 1, best="highest"), Column("loss", 3, best="lowest")],
            [
                ["copy", 4.26, None],
                [NASTY, Estimate(45.31, 44.0, 46.7), 1.2345],
                ["scratch", 12.0, float("nan")],
            ],
        ),
        Heading("Curves"),
        Curves(
            f"Loss {NASTY}",
            [Series(NASTY, [1, 2, 3], [3, float("nan"), 1]), Series("_held out", [1, 3], [4.0, 2.0])],
            "step",
            "loss $",
            log_y=True,
        ),
        Curves("Again", [Series("one", [1], [1])], "x", "y"),
        Heading("Samples"),
        Heading("First rows", level=3),
        Samples("Outputs", [Sample(NASTY, "", ["a", NASTY])]),
        HeatMap(f"Shares {NASTY}", ["a", NASTY], ["x"], [[0.5], [-0.25]], "from ↓ to →", "nats"),
        TokenMap("A sentence", [Token("the", 0), Token("<s>", 1), Token("\n", 0.256)], f"odds {NASTY}"),
    ],
)


class Reader(HTMLParser):
    """What a browser would see: attributes, text, and whether every element is closed where it should be."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.text.setdefault(self.open[-1], []).append(data.strip())

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


@pytest.fixture(scope="module")
def html() -> str:
    return render_page(PAGE)


@pytest.fixture(scope="module")
def seen(html: str) -> Reader:
    return Reader(html)


def test_every_element_is_closed_and_every_id_is_used_once(seen: Reader) -> None:
    assert seen.open == []
    assert [id for id, count in Counter(seen.values("id")).items() if count > 1] == []


def test_nothing_is_loaded_from_outside(html: str, seen: Reader) -> None:
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(seen.tags)
    assert seen.values("src") == []
    assert all(value.startswith("#") for value in seen.values("href"))
    assert all(value.startswith("#") for value in re.findall(r"url\(([^)]*)\)", html))
    assert "@import" not in html
    assert "http:" not in html and "https:" not in html


def test_links_inside_the_page_lead_somewhere(html: str, seen: Reader) -> None:
    ids = set(seen.values("id"))
    targets = [value[1:] for value in seen.values("href")] + re.findall(r"url\(#([^)]*)\)", html)
    assert targets and set(targets) <= ids


def test_texts_are_shown_and_never_read_as_markup(html: str, seen: Reader) -> None:
    assert "<script" not in html
    shown = [text for texts in seen.text.values() for text in texts]
    for wanted in (f"About {NASTY}", f"Report {NASTY}", NASTY, f"1: odds {NASTY}"):
        assert wanted in shown
    # In the figure too: no mathematics made of dollar signs, no name dropped for its underscore.
    assert NASTY in seen.text["text"] and "loss $" in seen.text["text"]
    assert "_held out" in seen.text["text"]


def test_headings_captions_and_names_for_those_who_listen(html: str, seen: Reader) -> None:
    assert seen.tags["h1"] == 1
    assert seen.text["h2"] == ["Scores", "Curves", "Samples"] and seen.text["h3"] == ["First rows"]
    assert seen.tags["caption"] == seen.tags["table"] == 4  # two tables, and one below each figure
    assert seen.tags["figcaption"] == seen.tags["figure"] == 4
    labels = [value for tag, name, value in seen.attributes if (tag, name) == ("svg", "aria-label")]
    assert labels == [f"Loss {NASTY}", "Again"]
    assert seen.values("scope").count("row") == 3 + 2 + 1 + 2
    assert '<html lang="en">' in html and 'name="viewport"' in html


def test_the_best_of_a_column_is_marked_in_words_too(html: str) -> None:
    marked = re.findall(r'<span class="best">([^<]*)</span><span class="unseen"> \(best\)</span>', html)
    assert marked == ["45.3 [44.0, 46.7]", "1.234"]


def test_tokens_carry_their_numbers(html: str, seen: Reader) -> None:
    assert re.findall(r'<span class="value">([^<]*)</span>', html) == ["0.00", "1.00", "0.26"]
    assert "<s>: 1.00" in seen.values("title")


def test_the_same_page_gives_the_same_bytes_in_another_process(html: str) -> None:
    script = "import sys, test_page; sys.stdout.buffer.write(test_page.render_page(test_page.PAGE).encode())"
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    # Another seed of str's hash and another date.
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "86400"}
    other = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
    assert other.stdout.decode() == html


def test_a_users_matplotlib_settings_change_nothing(html: str) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "axes.linewidth": 9, "svg.fonttype": "path"}):
        assert render_page(PAGE) == html
        assert matplotlib.rcParams["font.size"] == 30


def test_write_page_replaces_the_old_page_and_leaves_nothing_beside(tmp_path: Path, html: str) -> None:
    path = tmp_path / "new" / "report.html"
    write_page(path, Page("old", []))
    write_page(path, PAGE)
    assert path.read_text(encoding="utf-8") == html
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_keeps_the_page_whole(first: str, second: str) -> None:
    page = Page(
        first,
        [
            Heading(second),
            Table(first, [second, "b"], [[first, second]]),
            Samples(second, [Sample(first, second, [first])]),
            TokenMap(first, [Token(second, 0.5)], first),
        ],
    )
    seen = Reader(render_page(page))
    assert seen.open == [] and seen.tags["td"] == 1 and seen.tags["svg"] == 0


# Contrast, by WCAG 2.2: text 4.5:1 (1.4.3), graphics 3:1 (1.4.11).


def luminance(color: tuple[float, ...]) -> float:
    parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def rgb(color: str) -> tuple[float, ...]:
    return tuple(int(color[index : index + 2], 16) for index in (1, 3, 5))


def schemes(html: str) -> list[dict[str, str]]:
    style = html[html.index("<style>") : html.index("</style>")]
    return [
        dict(re.findall(r"--(\w+): ([^;]*);", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)
    ]


def test_contrast_in_both_schemes(html: str) -> None:
    light, dark = schemes(html)
    assert luminance(rgb(light["page"])) > 0.9 and luminance(rgb(dark["page"])) < 0.02
    for colors in (light, dark):
        page, ink = rgb(colors["page"]), rgb(colors["ink"])
        for text in ("ink", "quiet", "good"):
            assert contrast(rgb(colors[text]), page) >= 4.5
            assert contrast(rgb(colors[text]), rgb(colors["panel"])) >= 4.5
        mark = [float(part) for part in colors["mark"].split()]
        strongest = tuple(0.6 * m + 0.4 * p for m, p in zip(mark, page, strict=True))
        assert contrast(ink, strongest) >= 4.5
        for line in PALETTE:
            assert contrast(rgb(line), page) >= 3


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ValueError, match="row 2 has 1 cells for 2 columns"):
        Table("t", ["a", "b"], [["x", "y"], ["x"]])
    with pytest.raises(ValueError, match="'the' has the intensity nan"):
        Token("the", float("nan"))
    with pytest.raises(ValueError, match=r"intensity 1\.5"):
        Token("the", 1.5)
    with pytest.raises(ValueError, match="'train' has 2 x and 1 y"):
        Series("train", [1, 2], [1])


def test_heat_maps_tint_by_size_and_sign(html: str) -> None:
    cells = re.findall(r'<td class="number( below)?" style="--i:([\d.]+)">([^<]*)</td>', html)
    assert cells == [("", "1.000", "0.50"), (" below", "0.500", "-0.25")]
    shown = HeatMap("m", ["a"], ["x", "y"], [[float("nan"), -0.001]], "", "").cells()[0]
    assert [text for text, _, _ in shown] == ["", "0.00"]
    with pytest.raises(ValueError, match="2 × 1"):
        HeatMap("m", ["a", "b"], ["x"], [[1.0]], "", "")
