"""The one way a page is drawn: tables, curves, token maps in a self-contained HTML file."""
