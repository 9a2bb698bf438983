from __future__ import annotations

import pytest
import torch

from unmask.nn.activation import activated
from unmask.nn.linear import ACTIVATIONS


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 4e-3)])
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_values_and_gradients_are_those_of_float64(
    name: str, kind: torch.dtype, tolerance: float, gated: bool
) -> None:
    torch.manual_seed(0)
    x = (torch.randn(37, 129) * 3).to(kind).requires_grad_()
    leaves = [x, torch.randn(37, 129).to(kind).requires_grad_()][: 1 + gated]
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    out = activated(name, *leaves)
    expected = ACTIVATIONS[name](wide[0])
    if gated:
        expected = expected * wide[1]
    upstream = torch.randn(x.shape).to(kind)
    found = torch.autograd.grad(out, leaves, upstream)
    wanted = torch.autograd.grad(expected, wide, upstream.double())
    for one, other in zip((out, *found), (expected, *wanted), strict=True):
        assert one.dtype == kind
        assert (one.double() - other).abs().max() <= tolerance * other.abs().max()


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_far_from_zero_it_is_flat_or_straight(name: str) -> None:
    x = torch.tensor([-60.0, 60.0], requires_grad=True)
    out = activated(name, x)
    (slopes,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(out.detach(), torch.tensor([0.0, 60.0]), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(slopes, torch.tensor([0.0, 1.0]), atol=1e-5, rtol=1e-6)


def test_other_types_and_no_gradient_go_through_torch() -> None:
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.equal(activated("gelu", x), torch.nn.functional.gelu(x))
    assert torch.equal(activated("silu", x.float().detach()), torch.nn.functional.silu(x.float().detach()))
