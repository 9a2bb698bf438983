"""Activations of a feed-forward in training: on a CPU one compiled pass there and one back, which keep inputs alone."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numba import carray, njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from unmask.nn import lines, threads
from unmask.nn.compiled import c_function, version_of
from unmask.nn.linear import ACTIVATIONS
from unmask.nn.lines import KINDS, bytes_of, narrow, widen
from unmask.nn.products import floats
from unmask.nn.threads import HEADER, member, share
from unmask.nn.tiles import LANES
from unmask.nn.vectors import ACTIVATIONS as NUMBERS
from unmask.nn.vectors import activate, slope

_WHAT, _KIND, _COUNT, _ACTIVATION, _X, _FACTOR, _ABOVE, _OUT, _OUT_FACTOR, _SCRATCH = range(
    HEADER, HEADER + 10
)
_SIZE = HEADER + 10
#: Numbers that a thread takes at a time: three such lines of float32 stay in the first cache.
_BLOCK = 2048


def activated(name: str, x: Tensor, factor: Tensor | None = None) -> Tensor:
    """The activation of that name, elementwise; with a factor, times that, as in a gated feed-forward.

    Args:
        name: a key of `nn.linear.ACTIVATIONS`.
        x: any shape; factor: the same.
    """
    kinds = [x.dtype] if factor is None else [x.dtype, factor.dtype]
    trained = torch.is_grad_enabled() and (x.requires_grad or (factor is not None and factor.requires_grad))
    if trained and x.device.type == "cpu" and lines.available(*kinds) and len(set(kinds)) == 1:
        return _Activated.apply(name, x, factor)
    result = ACTIVATIONS[name](x)
    return result if factor is None else result * factor


class _Activated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, name: str, x: Tensor, factor: Tensor | None) -> Tensor:
        x, factor = x.contiguous(), None if factor is None else factor.contiguous()
        ctx.save_for_backward(x, factor)
        ctx.name = name
        out = torch.empty_like(x)
        _run(0, name, x, factor, None, out, None)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[None, Tensor, Tensor | None]:
        x, factor = ctx.saved_tensors
        of_x, of_factor = torch.empty_like(x), None if factor is None else torch.empty_like(factor)
        _run(1, ctx.name, x, factor, above.contiguous(), of_x, of_factor)
        return None, of_x, of_factor


def _run(
    what: int,
    name: str,
    x: Tensor,
    factor: Tensor | None,
    above: Tensor | None,
    out: Tensor,
    out_factor: Tensor | None,
) -> None:
    scratch = torch.empty(torch.get_num_threads() * 3 * _BLOCK)
    table = np.zeros(_SIZE, dtype=np.int64)
    tensors = (0 if tensor is None else tensor.data_ptr() for tensor in (x, factor, above, out, out_factor))
    table[HEADER:] = what, KINDS[x.dtype], x.numel(), NUMBERS[name], *tensors, scratch.data_ptr()
    threads.run(_compiled().address, table)


@njit
def _forward(table: Any, begin: int, count: int, scratch: int) -> None:
    kind, one = table[_KIND], np.float32(1.0)
    place = begin * bytes_of(kind)
    x, factor = floats(scratch, count), floats(scratch + _BLOCK * 4, count)
    widen(kind, table[_X] + place, x, count, one)
    activate(table[_ACTIVATION], scratch, (count + LANES - 1) // LANES)
    if table[_FACTOR] != 0:
        widen(kind, table[_FACTOR] + place, factor, count, one)
        for i in range(count):
            x[i] *= factor[i]
    narrow(kind, x, table[_OUT] + place, count, one)


@njit
def _backward(table: Any, begin: int, count: int, scratch: int) -> None:
    kind, one = table[_KIND], np.float32(1.0)
    place, vectors = begin * bytes_of(kind), (count + LANES - 1) // LANES
    x, above = floats(scratch, count), floats(scratch + _BLOCK * 4, count)
    widen(kind, table[_X] + place, x, count, one)
    widen(kind, table[_ABOVE] + place, above, count, one)
    if table[_FACTOR] != 0:
        third = scratch + 2 * _BLOCK * 4
        value = floats(third, count)
        value[:] = x
        activate(table[_ACTIVATION], third, vectors)
        for i in range(count):
            value[i] *= above[i]
        narrow(kind, value, table[_OUT_FACTOR] + place, count, one)
        widen(kind, table[_FACTOR] + place, value, count, one)
        for i in range(count):
            above[i] *= value[i]
    slope(table[_ACTIVATION], scratch, vectors)
    for i in range(count):
        x[i] *= above[i]
    narrow(kind, x, table[_OUT] + place, count, one)


@njit
def _part(table: Any) -> None:
    """The calling thread's blocks."""
    me, members = member(table)
    count = table[_COUNT]
    scratch = table[_SCRATCH] + me * 3 * _BLOCK * 4
    first, last = share((count + _BLOCK - 1) // _BLOCK, me, members)
    for block in range(first, last):
        begin = block * _BLOCK
        size = min(_BLOCK, count - begin)
        if table[_WHAT] == 0:
            _forward(table, begin, size, scratch)
        else:
            _backward(table, begin, size, scratch)


@cache
def _compiled() -> Any:
    version = version_of(lines)

    def activation(address: Any) -> None:
        if version >= 0:
            _part(carray(address, (_SIZE,), np.int64))

    return c_function(activation)
