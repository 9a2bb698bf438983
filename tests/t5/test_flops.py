"""FLOPs by formula against PyTorch's count of what a step really runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from unmask.nn import lines
from unmask.nn.ragged import Layout
from unmask.t5 import flops
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration

CONFIG = T5Config(
    vocab_size=64,
    d_model=16,
    d_kv=6,
    d_ff=40,
    num_layers=3,
    num_decoder_layers=2,
    num_heads=2,
    feed_forward_proj="gated-gelu",
    tie_word_embeddings=False,
    # With dropout attention is written out: the fused kernel for CPUs is one that PyTorch does not count.
    dropout_rate=0.1,
)
#: Of one length each: attention pads sequences of unlike length that it takes together, which is not counted.
INPUTS, TARGETS = np.array([20] * 4, np.int32), np.array([7] * 4, np.int32)


@pytest.fixture(autouse=True)
def _weights_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model's operations are those of its formulas, whatever is computed again to save memory."""
    monkeypatch.setattr(lines, "available", lambda *kinds: False)


@pytest.mark.parametrize(
    "config", [CONFIG, replace(CONFIG, feed_forward_proj="relu", tie_word_embeddings=True)]
)
def test_a_step(config: T5Config) -> None:
    model = T5ForConditionalGeneration(config).train()
    inputs, targets = torch.arange(80) % 60, torch.arange(28) % 60
    with FlopCounterMode(display=False) as counter:
        model.loss_sum(inputs, Layout.of(INPUTS.tolist()), targets, Layout.of(TARGETS.tolist())).backward()
    assert counter.get_total_flops() == flops.step_flops(config, INPUTS, TARGETS)


def test_sequences_of_unlike_length_count_without_padding() -> None:
    pairs = [(np.array([length], np.int32), np.array([length // 2], np.int32)) for length in (4, 20)]
    alone = sum(flops.step_flops(CONFIG, *pair) for pair in pairs)
    assert flops.step_flops(CONFIG, np.array([4, 20], np.int32), np.array([2, 10], np.int32)) == alone
