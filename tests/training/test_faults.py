"""The layer where a step went wrong is named, whether forwards or backwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unmask.training.activations import recomputed_layers
from unmask.training.faults import find_fault


class Poison(torch.autograd.Function):
    """The identity, whose gradient is not a number."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient * float("nan")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(3, 3), nn.Tanh()) for _ in range(4))
        self.poisoned: int | None = None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number == self.poisoned:
                x = Poison.apply(x)
        return {"x": x}


def fault(net: Net, scale: float = 1.0) -> str | None:
    return find_fault(net, [lambda: (net(torch.ones(2, 3))["x"].sum() * scale, None)])


def test_a_weight() -> None:
    net = Net()
    net.layers[2][0].weight.data[1, 1] = float("inf")
    assert fault(net) == "the weight layers.2.0.weight"


def test_an_output() -> None:
    net = Net()
    # Finite weights whose product is not, in the third layer; all that follows is not finite either.
    net.layers[2][0].bias.data.fill_(3e38)
    net.layers[2][0].weight.data.fill_(3e38)
    net.layers[1][0].bias.data.fill_(5.0)
    assert fault(net) == "the output of layers.2.0"


def test_the_loss() -> None:
    assert fault(Net(), float("inf")) == "the loss"


@pytest.mark.parametrize("poisoned", [1, 3])
def test_a_gradient(poisoned: int) -> None:
    """All layers below are not finite either; the one nearest to the loss is named."""
    net = Net()
    net.poisoned = poisoned
    assert str(fault(net)).startswith(f"the gradient of layers.{poisoned}.0.")


def test_layers_that_run_again_do_not_hide_it() -> None:
    net = Net()
    with recomputed_layers(net):
        assert fault(net, float("inf")) == "the loss"
        net.layers[2][0].bias.data.fill_(float("inf"))
        net.layers[2][0].weight.data.fill_(3e38)
        assert fault(net) == "the weight layers.2.0.bias"


def test_nothing_is_left_behind() -> None:
    net = Net()
    assert fault(net) is None
    assert not any(module._forward_hooks for module in net.modules())
    assert not any(parameter._backward_hooks for parameter in net.parameters())
