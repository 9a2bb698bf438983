"""What int8 costs each product of a model by itself, measured on the activations of real inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unmask.nn.linear import PackedLinear, pack
from unmask.nn.pretrained import PretrainedModel


class _Sums:
    """Squares of a linear layer's output, and of what int8 makes differently."""

    def __init__(self, linear: nn.Linear) -> None:
        self.packed: PackedLinear = pack(linear.weight, "int8")
        self.error = self.output = 0.0

    def __call__(self, linear: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(linear, nn.Linear)
        rows = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).float()
        exact = output.detach().reshape(len(rows), -1).float()
        exact = exact if linear.bias is None else exact - linear.bias
        self.error += float((self.packed(rows) - exact).square().sum(dtype=torch.float64))
        self.output += float(exact.square().sum(dtype=torch.float64))

    @property
    def relative(self) -> float:
        return math.sqrt(self.error / self.output) if self.output else 0.0


@contextmanager
def product_errors(model: PretrainedModel) -> Iterator[dict[str, float]]:
    """Watch a folded float32 model (`PretrainedModel.fold`) while inputs pass through its linear layers.

    Yields:
        Empty, and filled when the block ends: product → the norm of int8's error over the norm of its output,
        over all rows that passed; of several matrices in one product, the largest. Each product is given exact
        inputs, so the numbers say where errors arise, not how they add up.
    """
    found: dict[str, float] = {}
    products: dict[str, list[Any]] = {}
    hooks = []
    for product, names in model.products().items():
        for name in names:
            linear = model.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            sums = _Sums(linear)
            products.setdefault(product, []).append(sums)
            hooks.append(linear.register_forward_hook(sums))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
    found |= {product: max(sums.relative for sums in parts) for product, parts in products.items()}
