"""How tokens are called on a page."""

from __future__ import annotations

from collections.abc import Iterable

from unmask.text.tokenizer import Tokenizer


def names_of(tokenizer: Tokenizer, ids: Iterable[int]) -> list[str]:
    """The token of each id; `#id` for one without."""
    ids = list(ids)
    return [
        f"#{number}" if name is None else name
        for number, name in zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True)
    ]
