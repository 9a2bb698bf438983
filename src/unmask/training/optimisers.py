"""Optimisers: torch's, and thin subclasses for what torch lacks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from unmask.training.settings import OptimiserName


class UncorrectedAdamW(torch.optim.AdamW):
    """AdamW without bias correction, as BERT and ELECTRA train (google-research/electra,
    `model/optimization.py`: "AdamWeightDecayOptimizer").

    The corrections 1 − βᵗ are 1 for a large t, so each parameter's step count starts there; torch's fused
    kernels do the rest.
    """

    _FAR = 1e9

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and not self.state[parameter]:
                    self.state[parameter] = {
                        "step": torch.tensor(self._FAR, dtype=torch.float32, device=parameter.device),
                        "exp_avg": torch.zeros_like(parameter),
                        "exp_avg_sq": torch.zeros_like(parameter),
                    }
        return super().step(closure)


class ScaledAdamW(torch.optim.AdamW):
    """AdamW whose rate is relative to each tensor's size, as Adafactor's is: lr · max(1e-3, RMS(parameter)).

    T5's matrices start at very different scales (queries at (d_model · d_kv)^-1/2, embeddings at 1), so that
    one absolute rate is too much for some and too little for others: plain AdamW diverges on it (nanoT5,
    arXiv 2309.02373, section 3.2, whose AdamWScale this is).
    """

    SMALLEST_SCALE = 1e-3

    def __init__(self, params: Iterable[dict[str, Any]], lr: float, **options: Any) -> None:
        # A group for each tensor: a rate belongs to a group.
        groups = [group | {"params": [tensor]} for group in params for tensor in group["params"]]
        super().__init__(groups, lr=lr, **options)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        tensors = [group["params"][0] for group in self.param_groups]
        rates = [group["lr"] for group in self.param_groups]
        norms = torch.stack(torch._foreach_norm(tensors)).tolist()
        for group, tensor, norm in zip(self.param_groups, tensors, norms, strict=True):
            group["lr"] *= max(self.SMALLEST_SCALE, norm / math.sqrt(tensor.numel()))
        try:
            return super().step(closure)
        finally:
            for group, rate in zip(self.param_groups, rates, strict=True):
                group["lr"] = rate


def make_optimiser(
    name: OptimiserName,
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    learning_rate: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """The optimiser of that name over trainable parameters; weight decay spares norms and biases.

    - adamw: Adam with decoupled weight decay, β 0.9 / 0.999, ε 1e-8 (torch's defaults).
    - scaled-adamw: steps relative to each tensor's RMS, β 0.9 / 0.999, ε 1e-6 (nanoT5).
    - electra-adam: no bias correction, β 0.9 / 0.999, ε 1e-6 (google-research/electra).
    """
    decayed: list[Tensor] = []
    spared: list[Tensor] = []
    for _, parameter in named_parameters:
        if parameter.requires_grad:
            # Matrices and tables have two dimensions; norms and biases one.
            (decayed if parameter.dim() > 1 else spared).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if name == "electra-adam":
        return UncorrectedAdamW(groups, lr=learning_rate, eps=1e-6, fused=True)
    if name == "scaled-adamw":
        return ScaledAdamW(groups, lr=learning_rate, eps=1e-6, fused=True)
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)
