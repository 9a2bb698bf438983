"""Several linear layers of one input as one product: the input is converted once, and narrow layers make a wide one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def joined_linear(x: Tensor, *layers: nn.Module) -> tuple[Tensor, ...]:
    """What each layer makes of x; layers that are more than a matrix (adapters, hooks) are called one by one.

    Args:
        x: (…, inputs).
        layers: all with a bias or all without one.

    Returns:
        (…, outputs) of each layer, views of one result.
    """
    plain = [layer for layer in layers if type(layer) is nn.Linear and not _has_hooks(layer)]
    biases: list[Tensor] = [layer.bias for layer in plain if layer.bias is not None]
    if len(plain) < len(layers) or len(biases) not in (0, len(plain)):
        return tuple(layer(x) for layer in layers)
    weights: list[Tensor] = [layer.weight for layer in plain]
    bias = torch.cat(biases) if biases else None
    return tuple(F.linear(x, torch.cat(weights), bias).split([layer.out_features for layer in plain], -1))


def _has_hooks(layer: nn.Module) -> bool:
    """Whether somebody watches this layer alone."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks)
