"""Linear layers for inference: weights arranged once for the fastest kernel; int8 made from float weights.

On a CPU the layout of a weight decides how fast a product with few rows is: PyTorch's own (out, in) matrix is
the slow one. The operators that take a packed weight are private to PyTorch or deprecated, so they are called
here and nowhere else, and each falls back to a plain product where it is missing.

**Rows do not depend on each other.** Most kernels add in another order when the number of rows changes, so that
a text's result would depend on what else is in its batch. The float32 and int8 kernels here do not: row r of the
result is the same bits however many rows there are. int8 is our own (`unmask.nn.tiles`); oneDNN's packed product
has this property from two rows on, for every shape tried (`tests/nn/test_linear.py`). The float16 kernel has it
with AVX-512, not with AVX2.

Which kernel is used where was measured (rows × 512 inputs × 2,048 outputs, two cores of a Xeon with AMX, ms): int8
by tiles against FBGEMM's 0.02 : 0.05 for 8 rows, 0.10 : 0.21 for 64, 3.2 : 4.2 for 2,048; float32 by tiles
against oneDNN's 0.09 : 0.10, 0.37 : 0.36, 10.9 : 9.9.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.nn.inference import Engines

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}

#: oneDNN's name and algorithm of an activation computed while the product is written.
_FUSED = {
    None: ("none", ""),
    "relu": ("relu", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "silu": ("swish", ""),
}
#: oneDNN's packing asks how many rows to expect; from 8 on its choice was the same for every shape tried.
_ROWS_HINT = 16
#: Up to so many rows, FBGEMM's float16 weights beat oneDNN's bfloat16 ones: it is memory that is waited for.
_FEW_ROWS = 4
_LARGEST_HALF = 65504.0


class PackedLinear(Protocol):
    """y = act(x Wᵀ) with a weight that was packed: (rows, in) float32 → (rows, out) float32."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        """`to + self(x)`; may be written over `to`. For layers without activation."""


def pack(weight: Tensor, precision: str, activation: str | None = None) -> PackedLinear:
    """Pack a weight for inference on the device that it is on.

    Args:
        weight: (out, in), floating point.
        precision: "float32", "bfloat16", "float16" (float16 weights, float32 sums) or "int8".
        activation: a key of ACTIVATIONS, applied to the result; None leaves it as it is.
    """
    weight = weight.detach()
    if precision == "int8":
        return pack_int8(*quantize(weight), activation)
    if weight.device.type != "cpu":
        return _Plain(weight.to(getattr(torch, precision)), activation)
    if precision == "float16":
        return _Half(weight, activation) if _fits_half(weight) else _pack_float32(weight, activation)
    if precision == "bfloat16":
        narrow = weight.bfloat16()
        if not _has_onednn(torch.bfloat16):
            # A processor without bfloat16 products: float16 holds the same weights and is read as fast.
            return pack(narrow.float(), "float16", activation)
        many = _OneDNN(narrow, activation)
        return _ByRows(_Half(narrow.float(), activation), many) if _fits_half(narrow) else many
    return _pack_float32(weight.float(), activation)


def _pack_float32(weight: Tensor, activation: str | None) -> PackedLinear:
    if not _has_onednn(torch.float32):
        return _Plain(weight.float(), activation)
    return _AtLeast(_OneDNN(weight.float(), activation), _filled_rows())


@cache
def _filled_rows() -> int:
    """Fewer rows are filled up to so many, from where on a row's bits are the same in products of any size.

    t5-small's decoder, one row: with AVX-512 four rows are faster than two (11.7 against 14.5 ms, a thread of
    an AMD Zen 4), with AVX2 two (7.6 against 11.2 ms, two threads of a Zen 3).
    """
    return 4 if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else 2


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8, a scale for each output channel: (out, in) → int8 (out, in), float32 (out,)."""
    weight = weight.detach().float()
    scale = weight.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return torch.round(weight / scale[:, None]).to(torch.int8), scale


def pack_int8(weight: Tensor, scale: Tensor, activation: str | None = None) -> PackedLinear:
    """Pack what `quantize` made."""
    if weight.device.type != "cpu" or not _has_tiles():
        return _Plain(weight.float() * scale[:, None], activation)
    from unmask.nn import tiles
    from unmask.nn.tiled import Tiled

    return Tiled(tiles.pack_int8(weight, scale), activation)


class QuantizedLinear(nn.Module):
    """`nn.Linear` for inference with an int8 weight: activations are quantised row by row as they come.

    Shape: (…, in) → (…, out), in the input's type.
    """

    int8: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        int8, scale = quantize(weight)
        self.register_buffer("int8", int8)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        """(out, in) float32: what the int8 weight stands for."""
        return self.int8.float() * self.scale[:, None]

    def forward(self, x: Tensor) -> Tensor:
        y = _packed.of(self)(x.detach().reshape(-1, x.shape[-1]).float())
        y = y if self.bias is None else y + self.bias
        return y.view(*x.shape[:-1], -1).to(x.dtype)


# Beside the layers, not in them: packed weights are addresses, which no copy or pickle of a layer may hold.
_packed: Engines[QuantizedLinear, PackedLinear] = Engines(lambda layer: pack_int8(layer.int8, layer.scale))


def quantize_linears(module: nn.Module) -> None:
    """Put a `QuantizedLinear` in the place of every `nn.Linear` inside."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, QuantizedLinear(child.weight, child.bias))
        else:
            quantize_linears(child)


class _Plain:
    """PyTorch's own product, for other devices and builds without oneDNN."""

    def __init__(self, weight: Tensor, activation: str | None) -> None:
        self.weight = weight
        self.activation = ACTIVATIONS.get(activation or "")

    def __call__(self, x: Tensor) -> Tensor:
        y = F.linear(x.to(self.weight.dtype), self.weight).float()
        return y if self.activation is None else self.activation(y)

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        return to.add_(self(x))


class _OneDNN:
    """oneDNN's product with a blocked weight, activation or addition fused."""

    def __init__(self, weight: Tensor, activation: str | None) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS_HINT)
        self.narrow = weight.dtype != torch.float32
        self.type = weight.dtype
        self.kind, self.algorithm = _FUSED[activation]
        self.product = torch.ops.mkldnn._linear_pointwise.default
        self.product_and_sum = torch.ops.mkldnn._linear_pointwise.binary

    def __call__(self, x: Tensor) -> Tensor:
        if self.narrow:
            x = x.to(self.type)
            return self.product(x, self.weight, None, self.kind, [], self.algorithm).float()
        return self.product(x, self.weight, None, self.kind, [], self.algorithm)

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        if self.narrow:
            return to.add_(self(x))
        return self.product_and_sum(x, to, self.weight, None, "add")


class _AtLeast:
    """A kernel whose rows are the same bits from so many rows on: fewer are filled up."""

    def __init__(self, packed: PackedLinear, least: int) -> None:
        self.packed = packed
        self.least = least

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        if rows >= self.least:
            return self.packed(x)
        return self.packed(x.expand(self.least, -1) if rows == 1 else x.repeat(self.least, 1))[:rows]

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        return self.packed.add(x, to) if x.shape[0] >= self.least else to.add_(self(x))


class _ByRows:
    """One kernel for few rows, another for many."""

    def __init__(self, few: PackedLinear, many: PackedLinear) -> None:
        self.few = few
        self.many = many

    def __call__(self, x: Tensor) -> Tensor:
        return self.few(x) if x.shape[0] <= _FEW_ROWS else self.many(x)

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        return self.few.add(x, to) if x.shape[0] <= _FEW_ROWS else self.many.add(x, to)


class _Half:
    """FBGEMM: weights in float16, everything else in float32."""

    def __init__(self, weight: Tensor, activation: str | None) -> None:
        self.weight = _prepacked(torch.ops.quantized.linear_prepack_fp16, weight.float().contiguous())
        relu = activation == "relu"
        self.activation = None if relu else ACTIVATIONS.get(activation or "")
        operators = torch.ops.quantized
        self.product = (operators.linear_relu_dynamic_fp16 if relu else operators.linear_dynamic_fp16).default

    def __call__(self, x: Tensor) -> Tensor:
        y = self.product(x, self.weight)
        return y if self.activation is None else self.activation(y)

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        return to.add_(self.product(x, self.weight))


def _fits_half(weight: Tensor) -> bool:
    return "fbgemm" in torch.backends.quantized.supported_engines and bool(
        weight.abs().amax() <= _LARGEST_HALF
    )


def _has_tiles() -> bool:
    # Numba, which compiles them, takes half a second to import.
    from unmask.nn import tiles

    return tiles.available()


@cache
def _has_onednn(kind: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return kind == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _prepacked(operator: Any, weight: Tensor) -> Any:
    """A weight packed by FBGEMM, whichever engine is the process' choice for quantised tensors."""
    chosen = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return operator(weight, None)
    finally:
        torch.backends.quantized.engine = chosen
