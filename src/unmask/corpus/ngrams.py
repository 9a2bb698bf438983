"""Texts as hashes of their runs of n words: what near copies and contamination are found by."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
from xxhash import xxh3_64_intdigest

# Scripts without spaces between words: every character counts as one.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
# Odd, so that multiplication loses nothing modulo 2⁶⁴: ⌊2⁶⁴ / golden ratio⌋.
_BASE = np.uint64(0x9E3779B97F4A7C15)


def words_of(text: str) -> list[str]:
    """Runs of letters and digits, lower-cased, in Unicode's compatibility form; of scripts without spaces,
    characters. Punctuation and white space only separate."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def hash_words(words: list[str]) -> np.ndarray:
    """(words,) uint64."""
    return np.fromiter((xxh3_64_intdigest(word.encode()) for word in words), np.uint64, len(words))


def hash_ngrams(hashes: np.ndarray, n: int) -> np.ndarray:
    """The hash of every run of n words.

    Args:
        hashes: (words,) uint64, of `hash_words`.
        n: words in a run.

    Returns:
        (words - n + 1,) uint64, a polynomial of the words' hashes modulo 2⁶⁴; empty for fewer than n words.
    """
    runs = max(0, len(hashes) - n + 1)
    mixed = np.zeros(runs, np.uint64)
    for place in range(n):
        mixed *= _BASE
        mixed += hashes[place : place + runs]
    return mixed
