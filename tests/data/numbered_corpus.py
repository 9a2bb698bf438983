"""A tokenizer small enough to predict, and corpora for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unmask.data.shards import Shards


class NumberTokenizer:
    """Texts are numbers separated by white space; each is its own token id."""

    def __init__(self, vocab_size: int = 50_000, fingerprint: str = "numbers") -> None:
        self.vocab_size = vocab_size
        self.fingerprint = fingerprint

    def encode_batch(self, texts: list[str], *, add_special_tokens: bool) -> Sequence[Sequence[int]]:
        assert not add_special_tokens
        return [[int(number) for number in text.split()] for text in texts]


Pack = Callable[..., Shards]
"""Writes shards of documents given as lists of lines of token ids."""


def numbered(*line_lengths: Sequence[int], first: int = 1000) -> list[list[list[int]]]:
    """Documents with lines of these lengths, every token of the corpus a different id."""
    documents = []
    for lengths in line_lengths:
        lines = []
        for length in lengths:
            lines.append(list(range(first, first + length)))
            first += length
        documents.append(lines)
    return documents
