"""What a page is made of: small frozen values that say what to show, not how it looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Heading:
    """A section's title. `level` is 2 for a section and 3 for a part of it (1 is the page's own title)."""

    text: str
    level: Literal[2, 3] = 2


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class KeyFacts:
    """Short facts as (name, value) pairs, shown as they are given."""

    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Estimate:
    """A number with the interval around it, as a cell of a table; ranked by its value."""

    value: float
    low: float
    high: float


Cell = str | int | float | Estimate | None


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: its header.
        decimals: digits after the point of floats and estimates (whole numbers have none).
        numeric: right-aligned; default False, and implied by `best`.
        best: which value is highlighted, the highest or the lowest; None highlights nothing.
    """

    name: str
    decimals: int = 2
    numeric: bool = False
    best: Literal["highest", "lowest"] | None = None

    @property
    def right_aligned(self) -> bool:
        return self.numeric or self.best is not None


@dataclass(frozen=True)
class Table:
    """A table with a caption; the first column names the row.

    Args:
        caption: what the table shows.
        columns: a plain string is a column of text.
        rows: as many cells each as there are columns; None is shown as a dash.

    Raises:
        ValueError: a row of another length.
    """

    caption: str
    columns: Sequence[Column | str]
    rows: Sequence[Sequence[Cell]]

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows, start=1):
            if len(row) != len(self.columns):
                raise ValueError(f"row {number} has {len(row)} cells for {len(self.columns)} columns")

    def header(self) -> list[Column]:
        return [Column(column) if isinstance(column, str) else column for column in self.columns]

    def texts(self) -> list[list[str]]:
        """Every cell as it is shown."""
        header = self.header()
        return [
            [_cell_text(cell, column.decimals) for cell, column in zip(row, header, strict=True)]
            for row in self.rows
        ]

    def highlighted(self) -> set[tuple[int, int]]:
        """The (row, column) of every best value, ties included, judged by what is shown."""
        marked: set[tuple[int, int]] = set()
        for number, column in enumerate(self.header()):
            if column.best is None:
                continue
            # Rounded, so that two rows that read the same are not told apart by digits that nobody sees.
            values = {
                index: round(value, column.decimals)
                for index, row in enumerate(self.rows)
                if (value := _rank(row[number])) is not None
            }
            if values:
                best = max(values.values()) if column.best == "highest" else min(values.values())
                marked |= {(index, number) for index, value in values.items() if value == best}
        return marked


def _cell_text(cell: Cell, decimals: int) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Estimate):
        return f"{cell.value:,.{decimals}f} [{cell.low:,.{decimals}f}, {cell.high:,.{decimals}f}]"
    if isinstance(cell, float):
        return f"{cell:,.{decimals}f}"
    return f"{cell:,}"


def _rank(cell: Cell) -> float | None:
    value = cell.value if isinstance(cell, Estimate) else cell
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    return None


@dataclass(frozen=True)
class Series:
    """One line of a figure: as many x as y. A value that is not finite leaves a gap.

    Raises:
        ValueError: x and y differ in length, or are empty.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or not len(self.x):
            raise ValueError(f"series {self.name!r} has {len(self.x)} x and {len(self.y)} y")


@dataclass(frozen=True)
class Curves:
    """A figure of lines, with the ends and extremes of each in a table below it.

    Args:
        caption: what the figure shows; also its text for those who cannot see it.
        series: the lines, told apart by colour and dash.
        x_label, y_label: the axes' names, with their units.
        log_x, log_y: logarithmic axes; values that are not positive are left out there.
    """

    caption: str
    series: Sequence[Series]
    x_label: str
    y_label: str
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Sample:
    """What went in, what came out, and what was wanted."""

    source: str
    output: str
    references: Sequence[str]


@dataclass(frozen=True)
class Samples:
    """Outputs beside their references."""

    caption: str
    samples: Sequence[Sample]


@dataclass(frozen=True)
class Token:
    """A piece of text and how strongly it is marked, from 0 to 1.

    Raises:
        ValueError: an intensity outside 0 to 1.
    """

    text: str
    intensity: float

    def __post_init__(self) -> None:
        if not 0 <= self.intensity <= 1:
            raise ValueError(f"token {self.text!r} has the intensity {self.intensity}, not one from 0 to 1")


@dataclass(frozen=True)
class TokenMap:
    """A text token by token, each tinted by its intensity with the number under it.

    Args:
        caption: which text this is.
        tokens: in reading order.
        meaning: what the intensity is, e.g. "probability that the token was replaced".
    """

    caption: str
    tokens: Sequence[Token]
    meaning: str


@dataclass(frozen=True)
class HeatMap:
    """A matrix of numbers as a table whose cells are tinted: one colour above 0, another below.

    Args:
        caption: what the matrix shows.
        rows, columns: their names.
        values: a row of numbers for each of `rows`; nan leaves a cell empty.
        corner: what rows and columns are, e.g. "written ↓ source →".
        meaning: what a number is, with its unit.
        decimals: digits after the point.

    Raises:
        ValueError: values of another shape than the names.
    """

    caption: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    corner: str
    meaning: str
    decimals: int = 2

    def __post_init__(self) -> None:
        if len(self.values) != len(self.rows) or any(len(row) != len(self.columns) for row in self.values):
            raise ValueError(
                f"heat map {self.caption!r} has values for other names than {len(self.rows)} × {len(self.columns)}"
            )

    def cells(self) -> list[list[tuple[str, float, bool]]]:
        """Of every number the text, its size from 0 to 1 beside the largest, and whether it is below 0."""
        finite = [abs(value) for row in self.values for value in row if math.isfinite(value)]
        largest = max(finite, default=0.0) or 1.0
        return [
            [
                # Plus 0.0: what rounds to nothing is not shown as −0.
                (f"{round(value, self.decimals) + 0.0:.{self.decimals}f}", abs(value) / largest, value < 0)
                if math.isfinite(value)
                else ("", 0.0, False)
                for value in row
            ]
            for row in self.values
        ]


Block = Heading | Paragraph | KeyFacts | Table | Curves | Samples | TokenMap | HeatMap


@dataclass(frozen=True)
class Page:
    """A whole page. `language` is the HTML language tag of its text, default English."""

    title: str
    blocks: Sequence[Block]
    language: str = "en"
