from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unmask.nn.joined import joined_linear


@pytest.mark.parametrize("bias", [False, True])
def test_each_result_is_its_layers_own(bias: bool) -> None:
    layers = [nn.Linear(6, width, bias=bias, dtype=torch.float64) for width in (4, 2, 8)]
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    leaves = [x, *(parameter for layer in layers for parameter in layer.parameters())]
    found, wanted = joined_linear(x, *layers), [layer(x) for layer in layers]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
    gradients = [
        torch.autograd.grad(sum(part.square().sum() for part in parts), leaves) for parts in (found, wanted)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_what_is_more_than_a_matrix_is_called() -> None:
    x, plain, doubled = torch.randn(5, 6), nn.Linear(6, 4), Doubled(6, 4)
    found = joined_linear(x, plain, doubled)
    torch.testing.assert_close(found[1], doubled(x))
    seen: list[Tensor] = []
    plain.register_forward_hook(lambda module, inputs, output: seen.append(output))
    joined_linear(x, plain, plain)
    assert len(seen) == 2
