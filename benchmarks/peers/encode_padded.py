"""Padded batches of 32 for engines that know nothing else, in the order given or sorted by length."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

BATCH = 32

#: (texts, longest) ids and mask → (texts, labels) logits.
Forward = Callable[[np.ndarray, np.ndarray], np.ndarray]


def in_batches(forward: Forward, *, by_length: bool) -> Callable[[list[list[int]]], np.ndarray]:
    def classify(texts: list[list[int]]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i])) if by_length else range(len(texts))
        order = list(order)
        out: list[np.ndarray] = []
        for first in range(0, len(order), BATCH):
            rows = [texts[i] for i in order[first : first + BATCH]]
            ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
            mask = np.zeros_like(ids)
            for row, text in enumerate(rows):
                ids[row, : len(text)] = text
                mask[row, : len(text)] = 1
            out.append(forward(ids, mask))
        logits = np.concatenate(out)
        return logits[np.argsort(order)]

    return classify
