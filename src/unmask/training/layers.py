"""The layers of a model's stacks, and methods of theirs that do something else for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

Method = Callable[..., Any]


def layers_of(model: nn.Module) -> list[nn.Module]:
    """Every layer of every stack, in their order: what a `ModuleList` holds and multiplies with weights.

    A list of anything else, of tables of position biases for instance, is no stack.
    """
    return [
        layer
        for stack in model.modules()
        if isinstance(stack, nn.ModuleList)
        for layer in stack
        if any(isinstance(part, nn.Linear) for part in layer.modules())
    ]


@contextmanager
def replaced(modules: Iterable[nn.Module], method: str, change: Callable[[Method], Method]) -> Iterator[None]:
    """Inside the block the method of that name of each module is what `change` makes of it."""
    changed = list(modules)
    for module in changed:
        setattr(module, method, change(getattr(module, method)))
    try:
        yield
    finally:
        for module in changed:
            delattr(module, method)
