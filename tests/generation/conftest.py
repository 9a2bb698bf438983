"""Tiny random T5s, ours and Transformers' with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unmask.t5.model import T5ForConditionalGeneration

transformers = pytest.importorskip("transformers")

VOCABULARY = 64


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[T5ForConditionalGeneration, Any]]:
    """pair(seed, spread=…) → (our model, Transformers'), random weights; a larger spread, surer models."""

    def make(seed: int, spread: float = 3.0) -> tuple[T5ForConditionalGeneration, Any]:
        torch.manual_seed(seed)
        config = transformers.T5Config(
            vocab_size=VOCABULARY,
            d_model=16,
            d_kv=8,
            d_ff=32,
            num_layers=2,
            num_heads=2,
            decoder_start_token_id=0,
            feed_forward_proj="gated-gelu" if seed % 2 else "relu",
            initializer_factor=spread,
        )
        theirs = transformers.T5ForConditionalGeneration(config).eval()
        directory: Path = tmp_path_factory.mktemp("t5")
        theirs.save_pretrained(directory)
        return T5ForConditionalGeneration.from_pretrained(directory).eval(), theirs

    return make


def padded_batch(seed: int, rows: int = 5, longest: int = 12) -> tuple[Tensor, Tensor]:
    """(rows, ≤ longest) random inputs that end with </s>, padded on the right, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, longest + 1, (rows,), generator=generator).tolist()
    ids = torch.zeros(rows, max(lengths), dtype=torch.int64)
    for row, length in enumerate(lengths):
        ids[row, : length - 1] = torch.randint(3, VOCABULARY, (length - 1,), generator=generator)
        ids[row, length - 1] = 1
    return ids, (torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]).long()
