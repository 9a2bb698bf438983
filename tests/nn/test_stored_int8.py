"""int8 weights on disk: the mark, and what other programs' marks lead to."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unmask.errors import UserError
from unmask.nn.linear import QuantizedLinear
from unmask.nn.stored_int8 import MARK, dequantize, is_marked


def test_the_mark_is_known_and_another_programs_refused() -> None:
    assert not is_marked({"model_type": "t5"}, "config.json")
    assert is_marked({"model_type": "t5"} | MARK, "config.json")
    with pytest.raises(UserError, match=r"x/config\.json: the weights were quantised by 'gptq'"):
        is_marked({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "x/config.json")


@given(rows=st.integers(1, 20), columns=st.integers(1, 20), seed=st.integers(0, 999))
def test_dequantized_is_what_the_layer_multiplies_with(rows: int, columns: int, seed: int) -> None:
    layer = QuantizedLinear(torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)))
    weights = {"a.int8": layer.int8, "a.scale": layer.scale, "b.scale": torch.ones(1)}
    dequantize(weights)
    assert set(weights) == {"a.weight", "b.scale"}
    assert torch.equal(weights["a.weight"], layer.weight)
