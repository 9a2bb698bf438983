"""Low-rank adaptation: a frozen linear layer plus the product of two thin matrices, which alone are trained.

LoRA (arXiv 2106.09685, section 4.1): y = W x + (alpha / rank) · B A x, with B zero and A random at the start, so
that training begins at the model that was given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.nn.dropout import Dropout
from unmask.settings import nearest

#: Stands for every linear layer inside the layers of a stack.
ALL = "all"


class LoraLinear(nn.Linear):
    """A linear layer with an adaptation; its own weight and bias keep their names and do not train.

    In evaluation the adaptation is in `weight`, where engines for inference look for it; in training the weight is
    the same bits as before.

    Shape: (…, in) → (…, out).

    Attributes:
        lora_a: (rank, in), Kaiming uniform with a = √5, as PEFT draws it.
        lora_b: (out, rank), zeros.
        scale: alpha / rank.
    """

    def __init__(self, linear: nn.Linear, *, rank: int, alpha: float, dropout: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.lora_a = nn.Parameter(linear.weight.new_empty(rank, self.in_features))
        self.lora_b = nn.Parameter(linear.weight.new_zeros(self.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.dropout = Dropout(dropout)
        self.rank, self.alpha, self.scale = rank, alpha, alpha / rank
        self._own: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if self.is_merged:
            return y
        return y + self.scale * F.linear(F.linear(self.dropout(x), self.lora_a), self.lora_b)

    @property
    def is_merged(self) -> bool:
        return self._own is not None

    @property
    def merged_weight(self) -> Tensor:
        """(out, in): W + scale · B A."""
        own = self.weight.detach() if self._own is None else self._own
        return own + self.scale * (self.lora_b.detach() @ self.lora_a.detach())

    @torch.no_grad()
    def train(self, mode: bool = True) -> Self:
        if mode and self._own is not None:
            self.weight.copy_(self._own)
            self._own = None
        elif not mode and self._own is None:
            own = self.weight.detach().clone()
            self.weight.copy_(self.merged_weight)
            self._own = own
        return super().train(mode)


def add_lora(
    model: nn.Module,
    targets: Collection[str],
    *,
    rank: int,
    alpha: float,
    dropout: float,
    trained: Callable[[str], bool],
) -> None:
    """Adapt linear layers inside the layers of a model's stacks, in place, and freeze everything else.

    Args:
        targets: last parts of the layers' names inside, such as "query"; or ALL.
        trained: whether a parameter, by its name, trains as it is: those of a new head.

    Raises:
        UserError: a target that no layer has.
    """
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and ".layers." in f".{name}"
    }
    known = sorted({_last(name) for name in linears})
    for target in targets:
        if target not in (ALL, *known):
            raise UserError(f"no layer {target!r} to adapt{nearest(target, [ALL, *known])}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained(name))
    for name, linear in linears.items():
        if ALL in targets or _last(name) in targets:
            parent, _, last = name.rpartition(".")
            adapted = LoraLinear(linear, rank=rank, alpha=alpha, dropout=dropout)
            setattr(model.get_submodule(parent), last, adapted.train(linear.training))


def adapted(model: nn.Module) -> dict[str, LoraLinear]:
    """The adapted layers of a model by their names inside."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """A model's tensors by their names inside, as those of the plain model that computes the same."""
    layers = adapted(model)
    state = {}
    for name, tensor in model.state_dict().items():
        owner, _, kind = name.rpartition(".")
        if owner in layers and kind == "weight":
            state[name] = layers[owner].merged_weight
        elif kind not in ("lora_a", "lora_b"):
            state[name] = tensor
    return state


def _last(name: str) -> str:
    return name.rpartition(".")[2]
