"""Activation checkpointing, applied from outside: a layer keeps its input alone and runs again for its gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from unmask.training.layers import layers_of, replaced


@contextmanager
def recomputed_layers(model: nn.Module) -> Iterator[None]:
    """Inside the block every layer of the model's stacks keeps its inputs alone for the backward pass (1604.06174).

    Gradients are the same bits: the second pass has the same inputs, precision and draws, as torch's generator is put
    back for it. What is evaluated without gradients runs as ever.
    """
    with replaced(layers_of(model), "forward", _recomputed):
        yield


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*arguments, **options)
        return checkpoint(forward, *arguments, use_reentrant=False, **options)

    return run
