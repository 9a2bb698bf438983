"""Helpers that several tests of decoding share."""

from __future__ import annotations

import torch
from torch import Tensor

VOCABULARY = 64
END = 1


def padded_batch(seed: int, rows: int = 5, longest: int = 12) -> tuple[Tensor, Tensor]:
    """(rows, ≤ longest) random inputs that end with </s>, padded on the right, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, longest + 1, (rows,), generator=generator).tolist()
    ids = torch.zeros(rows, max(lengths), dtype=torch.int64)
    for row, length in enumerate(lengths):
        ids[row, : length - 1] = torch.randint(3, VOCABULARY, (length - 1,), generator=generator)
        ids[row, length - 1] = END
    return ids, (torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]).long()


def trimmed(sequences: Tensor, prompt_length: int = 1) -> list[list[int]]:
    """Rows up to their end token: Transformers' beams pad with the end token, ours with the padding token."""
    rows = []
    for row in sequences.tolist():
        written = row[prompt_length:]
        end = written.index(END) + 1 if END in written else len(written)
        rows.append(row[:prompt_length] + written[:end])
    return rows


def alone(ids: Tensor, mask: Tensor, row: int) -> tuple[Tensor, Tensor]:
    """One row of a batch without its padding."""
    kept = ids[row, mask[row].bool()][None]
    return kept, torch.ones_like(kept)
