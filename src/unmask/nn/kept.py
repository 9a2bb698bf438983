"""Linear layers of an int8 model that stay bfloat16, because int8 would cost them too much."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from unmask.nn.inference import Engines
from unmask.nn.linear import PackedLinear, pack


class Bfloat16Linear(nn.Module):
    """`nn.Linear` for inference with a bfloat16 weight, where everything around it is float32.

    Shape: (…, in) → (…, out), in the input's type.
    """

    bf16: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("bf16", weight.detach().bfloat16())
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        """(out, in) float32."""
        return self.bf16.float()

    def forward(self, x: Tensor) -> Tensor:
        y = _packed.of(self)(x.detach().reshape(-1, x.shape[-1]).float())
        y = y if self.bias is None else y + self.bias
        return y.view(*x.shape[:-1], -1).to(x.dtype)


_packed: Engines[Bfloat16Linear, PackedLinear] = Engines(lambda layer: pack(layer.weight, "bfloat16"))


@torch.no_grad()
def keep_linears(module: nn.Module, names: Collection[str]) -> None:
    """Put a `Bfloat16Linear` in the place of every `nn.Linear` of these names inside the module."""
    for name in names:
        parent, _, last = name.rpartition(".")
        linear = module.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        setattr(module.get_submodule(parent), last, Bfloat16Linear(linear.weight, linear.bias))
