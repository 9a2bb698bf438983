"""A model small enough to train hundreds of times, with everything that a run has to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from grain import MapDataset
from torch import Tensor, nn

from unmask.nn.sums import Sums
from unmask.training.loop import Batch, Loss
from unmask.training.settings import LoopSettings


class Toy(nn.Module):
    """Two layers that share one matrix, as an ELECTRA pair shares its embeddings, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        # In a list of that name, as every model's: Muon looks for it.
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        for layer in self.layers:
            layer.weight = nn.Parameter(torch.randn(4, 4, generator=draw))
            layer.bias = nn.Parameter(torch.randn(4, generator=draw))
        self.two.weight = self.one.weight
        self.dropout = nn.Dropout(0.3)

    @property
    def one(self) -> nn.Linear:
        return self.layers[0]

    @property
    def two(self) -> nn.Linear:
        return self.layers[1]

    def forward(self, values: Tensor) -> Tensor:
        return self.two(self.dropout(torch.tanh(self.one(values))))


def batches(count: int = 1000) -> Any:
    """Batch k: numbers drawn by k."""

    def draw(number: int) -> dict[str, np.ndarray]:
        return {"values": np.random.default_rng(number).standard_normal((3, 4)).astype(np.float32)}

    return MapDataset.range(count).map(draw)


@dataclass(frozen=True)
class ToyLosses(Sums):
    squares: Tensor
    numbers: int

    def metrics(self) -> dict[str, Tensor]:
        return {"loss": self.squares.detach() / self.numbers}


def loss_of(model: nn.Module, seen: list[int] | None = None) -> Any:
    def loss(batch: Batch, step: int, whole: Batch | None = None) -> Loss:
        if seen is not None:
            seen.append(step)
        out = model(torch.from_numpy(np.asarray(batch["values"])))
        squares = (out.float() ** 2).sum()
        return Loss(squares / out.numel(), ToyLosses(squares, out.numel()), 3)

    return loss


def settings(**changes: Any) -> LoopSettings:
    values = {"steps": 8, "learning_rate": 0.05, "checkpoint_every": 1, "log_every": 1}
    return LoopSettings(**(values | changes))


def weights(model: nn.Module) -> Sequence[Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]
