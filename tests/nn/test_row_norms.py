from __future__ import annotations

import pytest
import torch

from unmask.nn import lines
from unmask.nn.norm import RMSNorm

pytestmark = pytest.mark.skipif(
    not lines.available(torch.float32), reason="this processor lacks the instructions"
)


@pytest.mark.parametrize("shape", [(1, 3), (37, 129), (5, 7, 64)])
@pytest.mark.parametrize("autocast", [False, True])
def test_values_and_gradients_are_those_of_float64(shape: tuple[int, ...], autocast: bool) -> None:
    torch.manual_seed(0)
    norm = RMSNorm(shape[-1])
    with torch.no_grad():
        norm.weight.normal_()
    x = torch.randn(shape, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = norm(x)
    assert y.dtype == (torch.bfloat16 if autocast else torch.float32)
    upstream = torch.randn(shape).to(y.dtype)
    found = torch.autograd.grad(y, [x, norm.weight], upstream)
    wide, weight = (tensor.detach().double().requires_grad_() for tensor in (x, norm.weight))
    expected = weight * wide * (wide.square().mean(-1, keepdim=True) + norm.eps).rsqrt()
    wanted = torch.autograd.grad(expected, [wide, weight], upstream.double())
    tolerance = 4e-3 if autocast else 1e-6
    for one, other, bound in zip((y, *found), (expected, *wanted), (tolerance, 1e-6, 1e-6), strict=True):
        assert (one.double() - other).norm() <= bound * other.norm()


def test_the_bits_do_not_depend_on_the_threads() -> None:
    torch.manual_seed(0)
    norm, x = RMSNorm(40), torch.randn(77, 40)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(torch.autograd.grad(norm(x).square().sum(), norm.weight)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)
