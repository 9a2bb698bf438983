"""Optimisers: torch's, and thin subclasses for what torch lacks."""

from __future__ import annotations

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


def make_optimiser(
    name: OptimiserName,
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    learning_rate: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """The optimiser of that name over trainable parameters; weight decay spares norms and biases.

    - adamw: Adam with decoupled weight decay, β 0.9 / 0.999, ε 1e-8 (torch's defaults).
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
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)
