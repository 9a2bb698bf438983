"""Documents that hold texts of an evaluation, found by runs of words (Brown et al. 2020, appendix C)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
from datatrove.data import Document

from unmask.corpus.cleaning import Drop
from unmask.corpus.ledger import StepLedger
from unmask.corpus.ngrams import hash_ngrams, hash_words, words_of
from unmask.corpus.reading import read_cells
from unmask.errors import UserError
from unmask.hub import atomic_file

#: Fewer words than this are said everywhere: such texts of an evaluation are not looked for.
SHORTEST = 8


def write_index(files: Sequence[str | PathLike[str]], n: int, index: Path) -> None:
    """Write the hashes of all runs of n words in all texts of evaluation files.

    A text of fewer than n words, and of at least eight, is looked for as a whole.

    Args:
        files: evaluation files of any kind that `read_cells` reads; every column counts.
        n: words of a run, at least eight.
        index: a .npz file: for each number of words, the sorted hashes of runs of so many.

    Raises:
        UserError: a file that cannot be read, or no text that is long enough.
    """
    found: dict[int, list[np.ndarray]] = {}
    for text in read_cells(files):
        words = hash_words(words_of(text))
        if len(words) >= SHORTEST:
            length = min(n, len(words))
            found.setdefault(length, []).append(hash_ngrams(words, length))
    if not found:
        raise UserError(f"no text in {', '.join(map(str, files))} has {SHORTEST} words: nothing to look for")
    with atomic_file(index) as temporary, temporary.open("wb") as file:
        arrays = {str(length): np.unique(np.concatenate(hashes)) for length, hashes in found.items()}
        np.savez(file, **arrays)  # type: ignore[arg-type]


class Contamination:
    """Drops documents that share a run of words with an evaluation.

    Args:
        index: written by `write_index`.
    """

    def __init__(self, index: Path) -> None:
        self._index = index

    @cached_property
    def _hashes(self) -> dict[int, np.ndarray]:
        with np.load(self._index) as arrays:
            return {int(length): arrays[length] for length in arrays.files}

    def __call__(self, document: Document, step: StepLedger) -> Drop | None:
        words = words_of(document.text)
        hashes = hash_words(words)
        for length, known in self._hashes.items():
            ngrams = hash_ngrams(hashes, length)
            places = np.minimum(np.searchsorted(known, ngrams), len(known) - 1)
            shared = np.flatnonzero(known[places] == ngrams)
            if len(shared):
                return Drop("words of an evaluation", " ".join(words[shared[0] : shared[0] + length]))
        return None
