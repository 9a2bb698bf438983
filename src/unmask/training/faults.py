"""Where a step went wrong whose loss or gradient is not finite, found by making it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from unmask.training.parallel import local


def find_fault(model: nn.Module, passes: Iterable[Callable[[], tuple[Tensor, Any]]]) -> str | None:
    """What of a step is the first that is not finite: a weight, a layer's output, the loss, a weight's gradient.

    Args:
        passes: each makes a part of the step's loss again, first of a pair, from the same weights and draws. Gradients
            are left in the weights. All are made, whatever is found: other ranks may wait for their part of them.

    Returns:
        None where nothing is found, as the parts are finite and their sum is not, or it is another rank's.
    """
    found = [f"the weight {name}" for name, each in model.named_parameters() if not _finite(local(each))][:1]

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and not _finite(output):
                found.append(f"the output of {name or 'the model'}")

        return hook

    def watch_gradient(name: str) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            if not found and not _finite(gradient):
                found.append(f"the gradient of {name}")

        return hook

    # Layers end from the inside out, and gradients come from the loss backwards: the first is where it began.
    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    handles += [
        parameter.register_hook(watch_gradient(name))
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]
    try:
        for compute in passes:
            loss, _ = compute()
            if not found and not _finite(loss):
                found.append("the loss")
            loss.backward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


@torch.no_grad()
def _finite(value: Any) -> bool:
    """Whether every floating-point tensor in it is; nothing is kept for a gradient, of which layers that run again
    would keep another number when something has been found."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return all(_finite(getattr(value, field.name)) for field in dataclasses.fields(value))
    return all(
        bool(torch.isfinite(leaf).all())
        for leaf in tree_leaves(value)
        if isinstance(leaf, Tensor) and leaf.is_floating_point()
    )
