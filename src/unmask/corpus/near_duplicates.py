"""Near copies by MinHash, in datatrove's four stages; only the shingles are made here."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from pathlib import Path
from typing import Self

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)

from unmask.corpus.ledger import Ledger, StepLedger
from unmask.corpus.ngrams import hash_ngrams, hash_words, words_of
from unmask.corpus.parts import Documents

# Shingles whose permutations are in memory at once: 112 uint64 each.
_SHINGLES_AT_ONCE = 1 << 14


class SignShingles(MinhashDedupSignature):
    """First stage, with shingles of words in any script, and in memory that a long document does not raise."""

    def __init__(self, folder: Path, config: MinhashConfig) -> None:
        super().__init__(str(folder), config)

    def get_shingles(self, text: str) -> np.ndarray:
        """(shingles, 1) uint64. A text of fewer words than a shingle has is one shingle of them all."""
        words = hash_words(words_of(text))
        return hash_ngrams(words, min(self.config.n_grams, max(1, len(words)))).reshape(-1, 1)

    def get_signature(self, shingles: np.ndarray) -> list[list[int]]:
        blocks = range(0, len(shingles), _SHINGLES_AT_ONCE)
        signatures = [
            super(SignShingles, self).get_signature(shingles[at : at + _SHINGLES_AT_ONCE]) for at in blocks
        ]
        # The least over all shingles is the least of the blocks' least.
        return np.min(np.array(signatures, np.uint64), axis=0).tolist()


class JoinNearDuplicates(MinhashDedupCluster):
    """Third stage, without the bar that it draws on standard error for every task."""

    def run(self, data: None = None, rank: int = 0, world_size: int = 1) -> None:
        with redirect_stderr(io.StringIO()):
            super().run(data, rank, world_size)


class DropNearDuplicates(MinhashDedupFilter):
    """Last stage: one document of each cluster passes."""

    def __init__(self, name: str, folder: Path, ledger: Ledger) -> None:
        self.name = name
        self._accounts = _Accounts(name, ledger)
        super().__init__(str(folder), exclusion_writer=self._accounts)

    def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Documents:
        step = self._accounts.step()

        def counted() -> Documents:
            for document in data:
                step.documents_in += 1
                step.characters_in += len(document.text)
                yield document

        for document in super().run(counted(), rank, world_size):
            step.documents_out += 1
            step.characters_out += len(document.text)
            yield document


class _Accounts:
    """Where datatrove's filter sends what it drops: into the ledger, where others name a writer of files."""

    def __init__(self, step_name: str, ledger: Ledger) -> None:
        self._step_name = step_name
        self._ledger = ledger

    def step(self) -> StepLedger:
        return self._ledger.step(self._step_name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def write(self, document: Document, rank: int) -> None:
        self.step().drop_document("near copy", document.id, document.text)
