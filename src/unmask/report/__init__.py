"""The one way a page is drawn: tables, curves, token maps in a self-contained HTML file."""

from unmask.report.blocks import (
    Block,
    Cell,
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
)
from unmask.report.console import print_table
from unmask.report.page import render_page, write_page

__all__ = [
    "Block",
    "Cell",
    "Column",
    "Curves",
    "Estimate",
    "Heading",
    "HeatMap",
    "KeyFacts",
    "Page",
    "Paragraph",
    "Sample",
    "Samples",
    "Series",
    "Table",
    "Token",
    "TokenMap",
    "print_table",
    "render_page",
    "write_page",
]
