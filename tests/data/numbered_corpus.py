"""A tokenizer small enough to predict, and corpora for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from unmask.data.shards import Shards


class NumberTokenizer:
    """Texts are numbers separated by white space; each is its own token id."""

    def __init__(self, vocab_size: int = 50_000, fingerprint: str = "numbers") -> None:
        self.vocab_size = vocab_size
        self.fingerprint = fingerprint

    @property
    def releases_gil(self) -> bool:
        return False

    def encode_arrays(self, texts: list[str]) -> list[np.ndarray]:
        return [np.array(text.split(), np.int32) for text in texts]


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
