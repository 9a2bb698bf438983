"""How a person marks a gap in a text, for every model that fills them."""

GAP = "___"
