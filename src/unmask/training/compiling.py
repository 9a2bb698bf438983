"""What lies between two attentions of a model, compiled by torch.compile: applied from outside, for training alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from unmask.errors import UserError
from unmask.training.layers import replaced


def check_compiler(device: torch.device) -> None:
    """Raises:
    UserError: nothing here can compile for the device.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch.utils._triton import has_triton

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise UserError(
            "--compile needs a C++ compiler, and there is none: install g++, name one in CXX, or leave it out"
        ) from None
    if device.type == "cuda" and not has_triton():
        raise UserError("--compile needs Triton on a GPU: pip install triton, or leave it out")


@contextmanager
def compiled_layers(model: nn.Module) -> Iterator[None]:
    """Inside the block the methods `after_attention` of a model's layers are compiled, where gradients are wanted.

    They see tensors alone, of any number of tokens: what is compiled once serves every batch and every layer of a
    shape. Dropout has the masks that it has otherwise.
    """
    layers = [module for module in model.modules() if hasattr(module, "after_attention")]
    with replaced(layers, "after_attention", _compiled):
        yield


def _compiled(method: Callable[..., Any]) -> Callable[..., Any]:
    # Random numbers by torch's own generator, as without a compiler.
    fast = torch.compile(method, dynamic=True, options={"fallback_random": True})

    def run(*arguments: Any) -> Any:
        return (fast if torch.is_grad_enabled() else method)(*arguments)

    return run
