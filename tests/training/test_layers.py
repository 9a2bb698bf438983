"""Which modules are layers; methods that are replaced are put back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration
from unmask.training.layers import layers_of, replaced


def test_layers_of_both_stacks_and_no_tables() -> None:
    config = T5Config(
        vocab_size=9, d_model=4, d_kv=2, d_ff=4, num_layers=2, num_heads=2, num_decoder_layers=3
    )
    with torch.device("meta"):
        model = T5ForConditionalGeneration(config)
    names = {module: name for name, module in model.named_modules()}
    assert [names[layer] for layer in layers_of(model)] == [
        *(f"encoder.layers.{number}" for number in range(2)),
        *(f"decoder.layers.{number}" for number in range(3)),
    ]
    assert layers_of(nn.Sequential(nn.ModuleList([nn.Embedding(3, 2)]))) == []


def test_replaced_for_the_block_alone() -> None:
    layers = [nn.Linear(1, 1), nn.Linear(1, 1)]
    x = torch.ones(1)
    before = [layer(x) for layer in layers]

    def doubled(method: Any) -> Any:
        return lambda x: 2 * method(x)

    with pytest.raises(ValueError, match="inside"), replaced(layers, "forward", doubled):
        assert [layer(x) for layer in layers] == [2 * value for value in before]
        raise ValueError("inside")
    assert [layer(x) for layer in layers] == before
    assert not any("forward" in vars(layer) for layer in layers)
