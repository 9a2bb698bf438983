"""RMSNorm against Transformers' T5LayerNorm."""

from __future__ import annotations

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5LayerNorm

from unmask.nn.norm import RMSNorm


@pytest.mark.parametrize("weight_type", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("input_type", [torch.float32, torch.bfloat16, torch.float16])
def test_value_type_and_gradient(weight_type: torch.dtype, input_type: torch.dtype) -> None:
    ours, theirs = RMSNorm(24).to(weight_type), T5LayerNorm(24).to(weight_type)
    with torch.no_grad():
        ours.weight.copy_(torch.randn(24))
        theirs.weight.copy_(ours.weight)
    x = (100 * torch.randn(5, 24)).to(input_type).requires_grad_()
    out, expected = ours(x), theirs(x)
    assert out.dtype == expected.dtype
    torch.testing.assert_close(out, expected)
    upstream = torch.randn_like(out)
    found = torch.autograd.grad(out, (x, ours.weight), upstream)
    wanted = torch.autograd.grad(expected, (x, theirs.weight), upstream)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_statistics_of_float16_do_not_overflow() -> None:
    x = torch.full((1, 8), 60000.0, dtype=torch.float16)
    torch.testing.assert_close(RMSNorm(8).half()(x), torch.ones(1, 8, dtype=torch.float16))
