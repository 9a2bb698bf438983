"""Averages of weights: the moving one of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unmask.training.parallel import local


class MovingAverage:
    """An exponential moving average of a model's trainable weights, in their own precision.

    average ← d · average + (1 − d) · weights, with d = min(decay, (1 + t) / (10 + t)) after step t = 0, 1, …: early
    weights are forgotten quickly (TensorFlow's `ExponentialMovingAverage` with `num_updates`).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self.values: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in self._parameters.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as they are after a step (counted from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, weights = (list(map(local, each.values())) for each in (self.values, self._parameters))
        torch._foreach_lerp_(averages, weights, 1.0 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the average for its weights inside the block. Nothing is copied, but for shards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def put_in(self) -> None:
        """Give the model the average for good."""
        for name, parameter in self._parameters.items():
            parameter.copy_(self.values[name])

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            if local(parameter) is parameter:
                parameter.data, self.values[name] = self.values[name], parameter.data
            else:
                # FSDP knows a shard by its memory.
                shard, average = local(parameter), local(self.values[name])
                kept = shard.clone()
                shard.copy_(average)
                average.copy_(kept)
