"""Tiny random T5s, ours and Transformers' with the same weights."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from unmask.t5.model import T5ForConditionalGeneration

sys.path.insert(0, str(Path(__file__).parent))
from reference import END, VOCABULARY

transformers = pytest.importorskip("transformers")

Pair = tuple[T5ForConditionalGeneration, Any]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pair]:
    """pair(seed) → (our model, Transformers'), random weights, about half of whose rows end early."""

    @cache
    def make(seed: int, spread: float = 2.0) -> Pair:
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
        with torch.no_grad():
            theirs.lm_head.weight[END] *= 4
        directory: Path = tmp_path_factory.mktemp("t5")
        theirs.save_pretrained(directory)
        return T5ForConditionalGeneration.from_pretrained(directory).eval(), theirs

    return make
