"""int8 weights on disk: plain tensors, and a mark in config.json.

A matrix that a float model stores as `X.weight` is stored as `X.int8`, (out, in) int8, and `X.scale`, (out,)
float32: `weight = int8 · scale[:, None]`. Embeddings, norms, biases and position tables keep their names and
types; a matrix that stayed bfloat16 (`unmask.nn.kept`) is `X.bf16`. The mark is an entry that other programs know to
stop at, for they cannot use such weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from unmask.errors import UserError
from unmask.nn.kept import Bfloat16Linear
from unmask.nn.linear import QuantizedLinear

_ENTRY = "quantization_config"
_FORMAT = "unmask_int8"
#: What config.json says about a model of stored int8 weights. It names no "quant_method": at an unknown one
#: Transformers warns and goes on with weights drawn at random, at none it stops.
MARK: dict[str, Any] = {_ENTRY: {"format": _FORMAT}}


def is_marked(config: Mapping[str, Any], where: str) -> bool:
    """Whether a config.json says that its weights are stored as int8.

    Args:
        where: the file, for the error.

    Raises:
        UserError: weights that another program quantised.
    """
    entry = config.get(_ENTRY)
    if entry is None:
        return False
    if entry == MARK[_ENTRY]:
        return True
    method = entry.get("quant_method", entry) if isinstance(entry, Mapping) else entry
    raise UserError(
        f"{where}: the weights were quantised by {method!r}, which unmask does not read: take the "
        'floating-point model, and load it with dtype="int8"'
    )


def dequantize(weights: dict[str, Tensor]) -> None:
    """Put a float32 `X.weight` in the place of every `X.int8` and `X.scale`, and of every `X.bf16`."""
    for name in [name for name in weights if name.endswith(".bf16")]:
        weights[f"{name.removesuffix('.bf16')}.weight"] = weights.pop(name).float()
    for name in [name for name in weights if name.endswith(".int8")]:
        stem = name.removesuffix(".int8")
        scale = weights.pop(f"{stem}.scale", None)
        if scale is not None:
            weights[f"{stem}.weight"] = weights.pop(name).float() * scale.float()[:, None]


def expect(module: nn.Module, is_stored: Callable[[str], bool], prefix: str = "") -> None:
    """Put the layers of an int8 model, still empty, in the place of every `nn.Linear` that is stored so.

    Args:
        module: on the meta device.
        is_stored: says so of a tensor by its name inside, such as `encoder.layers.0.query.int8`.
    """
    for name, child in list(module.named_children()):
        if not isinstance(child, nn.Linear):
            expect(child, is_stored, f"{prefix}{name}.")
        elif is_stored(f"{prefix}{name}.int8"):
            setattr(module, name, QuantizedLinear(child.weight, child.bias))
        elif is_stored(f"{prefix}{name}.bf16"):
            setattr(module, name, Bfloat16Linear(child.weight, child.bias))
