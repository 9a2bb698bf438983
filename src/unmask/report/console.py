"""The tables of a page, on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unmask.report.blocks import Table

if TYPE_CHECKING:
    from rich.console import Console


def print_table(table: Table, console: Console | None = None) -> None:
    """Print a table with rich, the best values bold and starred. Default: to standard output."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    marked = table.highlighted()
    title = f"{table.caption} (* best)" if marked else table.caption
    # Text, not str, throughout: rich would read "[b]" in a str as markup.
    drawn = RichTable(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(table.header()):
        # A number that is cut is a wrong one: rather a line longer than the terminal.
        width = max((len(row[place]) for row in table.texts()), default=0) if column.right_aligned else None
        drawn.add_column(
            Text(column.name), justify="right" if column.right_aligned else "left", min_width=width
        )
    for number, row in enumerate(table.texts()):
        drawn.add_row(
            *(
                Text(f"{text} *", style="bold") if (number, index) in marked else Text(text)
                for index, text in enumerate(row)
            )
        )
    (console or Console()).print(drawn, crop=False)
