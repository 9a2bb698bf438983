"""Dropout whose mask is a function of a key and a place: nothing is kept for the backward pass but the key.

torch draws a CPU's mask on one thread and keeps it as numbers; in a step of ELECTRA that takes a fifth of the time.
Here the 32 bits of a place are a hash of its number and a key, made on all threads where they are used, and made again
where the gradient needs them. The key comes from torch's global generator, so `torch.manual_seed` decides the masks,
and activation checkpointing, which restores that generator, makes the same ones again.

A place is counted within a line, along the last dimension, and lines have numbers of their own: those of
`Layout.places` and `Layout.query_places` say which token of which text of the whole batch a line is of. So a text's
mask is the same whichever texts are computed together with it, on one process or on several.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numba import carray, njit
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.nn import threads
from unmask.nn.compiled import c_function, version_of
from unmask.nn.threads import HEADER, member, pointer, share

_X, _OUT, _PLACES, _LINES, _WIDTH, _KIND, _KEY, _THRESHOLD, _SCALE, _SIZE = range(HEADER, HEADER + 10)
_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float64: 2}


class Dropout(nn.Module):
    """Dropout as a module: zeros at the given rate in training, what is left scaled by 1 / (1 - rate).

    Args:
        rate: probability that a value becomes 0.

    Raises:
        UserError: a rate outside [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise UserError(f"dropout is {rate}: it must be at least 0 and below 1")
        self.rate = rate

    def forward(self, x: Tensor, places: Tensor | None = None) -> Tensor:
        return dropout(x, self.rate, places, training=self.training)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def dropout(
    x: Tensor,
    rate: float,
    places: Tensor | None = None,
    *,
    training: bool = True,
    key: Tensor | None = None,
) -> Tensor:
    """Zeros at the given rate, what is left scaled by 1 / (1 - rate); x itself where nothing is dropped.

    Args:
        x: (…, width).
        rate: probability that a value becomes 0, at least 0 and below 1; a multiple of 2^-32.
        places: (…) int64, contiguous, on x's device: the numbers of x's lines; None: 0, 1, … in their order.
        key: of `new_key`, for what is to be masked together in several calls; None: a new one.
    """
    if not training or rate == 0.0:
        return x
    if places is None:
        places = torch.arange(x.numel() // max(1, x.shape[-1]), device=x.device)
    key = new_key(x.device) if key is None else key
    if torch.compiler.is_compiling() and x.device.type == "cpu":
        return _uncompiled(x, rate, key, places)
    return _Dropout.apply(x, rate, key, places)


def new_key(device: torch.device) -> Tensor:
    """() int64 on the device, from torch's global generator."""
    return torch.randint(2**63 - 1, (), device=device)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float, key: Tensor, places: Tensor) -> Tensor:
        ctx.rate, ctx.key, ctx.places = rate, key, places
        return _masked(x, rate, key, places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _masked(gradient, ctx.rate, ctx.key, ctx.places), None, None, None


@torch.library.custom_op("unmask::dropout", mutates_args=())
def _uncompiled(x: Tensor, rate: float, key: Tensor, places: Tensor) -> Tensor:
    """What `torch.compile` leaves as it is on a CPU, where its loops over 64-bit numbers are slow."""
    return _masked(x, rate, key, places)


@_uncompiled.register_fake
def _(x: Tensor, rate: float, key: Tensor, places: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Tensor, float, Tensor, Tensor], output: Tensor) -> None:
    _, ctx.rate, *tensors = inputs
    ctx.save_for_backward(*tensors)


def _gradient(ctx: Any, above: Tensor) -> tuple[Tensor, None, None, None]:
    return _uncompiled(above, ctx.rate, *ctx.saved_tensors), None, None, None


_uncompiled.register_autograd(_gradient, setup_context=_keep)


def _masked(x: Tensor, rate: float, key: Tensor, places: Tensor) -> Tensor:
    """Value i of a line survives where its bits are not below rate · 2^32."""
    if x.device.type != "cpu" or x.dtype not in _KINDS:
        fused = x.device.type == "cuda" and not torch.compiler.is_compiling()
        by_operations = _fused() if fused else _by_operations
        return by_operations(x, rate, key, places)
    x = x.contiguous()
    out = torch.empty_like(x)
    width = x.shape[-1]
    scale = int(np.float64(1.0 / (1.0 - rate)).view(np.int64))
    table = np.zeros(_SIZE, dtype=np.int64)
    pointers = x.data_ptr(), out.data_ptr(), places.data_ptr()
    sizes = x.numel() // max(1, width), width, _KINDS[x.dtype]
    table[HEADER:] = *pointers, *sizes, int(key), round(rate * 2**32), scale
    threads.run(_compiled().address, table)
    return out


# --- on a CPU -------------------------------------------------------------------------------------------


@njit
def _bits(number: Any, low: Any, high: Any) -> Any:
    """32 bits for a place: the finaliser of MurmurHash3, a key's halves before and inside it."""
    h = np.uint32(np.uint32(number) * np.uint32(0x9E3779B1) + low)
    h = np.uint32(np.uint32(h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    h = np.uint32(np.uint32(h ^ (h >> np.uint32(13))) ^ high)
    h = np.uint32(h * np.uint32(0xC2B2AE35))
    return np.uint32(h ^ (h >> np.uint32(16)))


@njit
def _floats(x: Any, out: Any, low: Any, high: Any, threshold: Any, scale: Any) -> None:
    zero = scale - scale  # of its type
    for i in range(len(x)):
        out[i] = x[i] * scale if _bits(i, low, high) >= threshold else zero


@njit
def _halves(x: Any, out: Any, low: Any, high: Any, threshold: Any, scale: Any) -> None:
    """bfloat16 as the upper halves of float32, rounded to even."""
    for i in range(len(x)):
        value = np.uint32(np.uint32(x[i]) << np.uint32(16)).view(np.float32)
        wide = np.float32(value * scale).view(np.uint32)
        rounded = np.uint32(wide + np.uint32(0x7FFF) + ((wide >> np.uint32(16)) & np.uint32(1)))
        kept = _bits(i, low, high) >= threshold
        out[i] = np.uint16(rounded >> np.uint32(16)) if kept else np.uint16(0)


@njit
def _part(table: Any) -> None:
    """The calling thread's lines; each has a key of its own, made of its number."""
    me, members = member(table)
    lines, width, kind, key = table[_LINES], table[_WIDTH], table[_KIND], table[_KEY]
    places = carray(pointer(table[_PLACES]), (lines,), np.int64)
    threshold = np.uint32(table[_THRESHOLD])
    scale = np.int64(table[_SCALE]).view(np.float64)
    first, last = share(lines, me, members)
    for line in range(first, last):
        lower, upper = np.uint32(places[line] & 0xFFFFFFFF), np.uint32(places[line] >> 32)
        low = _bits(lower, np.uint32(key & 0xFFFFFFFF), upper)
        high = _bits(upper, np.uint32(key >> 32), lower)
        begin = line * width
        if kind == 0:
            x = carray(pointer(table[_X] + begin * 4), (width,), np.float32)
            out = carray(pointer(table[_OUT] + begin * 4), (width,), np.float32)
            _floats(x, out, low, high, threshold, np.float32(scale))
        elif kind == 1:
            x16 = carray(pointer(table[_X] + begin * 2), (width,), np.uint16)
            out16 = carray(pointer(table[_OUT] + begin * 2), (width,), np.uint16)
            _halves(x16, out16, low, high, threshold, np.float32(scale))
        else:
            x64 = carray(pointer(table[_X] + begin * 8), (width,), np.float64)
            out64 = carray(pointer(table[_OUT] + begin * 8), (width,), np.float64)
            _floats(x64, out64, low, high, threshold, scale)


@cache
def _compiled() -> Any:
    version = version_of()

    def drop(address: Any) -> None:
        if version >= 0:
            _part(carray(address, (_SIZE,), np.int64))

    return c_function(drop)


# --- on other devices -----------------------------------------------------------------------------------

_32 = 0xFFFFFFFF


def _bits_of(number: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """`_bits` in int64, whose products keep the lower 32 bits that count."""
    h = (number * 0x9E3779B1 + low) & _32
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & _32
    h = (h ^ (h >> 13)) ^ high
    h = (h * 0xC2B2AE35) & _32
    return h ^ (h >> 16)


def _by_operations(x: Tensor, rate: float, key: Tensor, places: Tensor) -> Tensor:
    """The same mask, by PyTorch's operations."""
    lower, upper = places & _32, places >> 32
    low = _bits_of(lower, key & _32, upper)
    high = _bits_of(upper, key >> 32, lower)
    columns = torch.arange(x.shape[-1], device=x.device)
    kept = _bits_of(columns, low[..., None], high[..., None]) >= round(rate * 2**32)
    return torch.where(kept.view(x.shape), x * (1.0 / (1.0 - rate)), 0)


@cache
def _fused() -> Any:
    """One kernel, which keeps the 64-bit numbers in registers: as many values as a mask has would fill the memory."""
    return torch.compile(_by_operations, dynamic=True)
