"""T5's norm in training on a CPU, compiled: one pass there, one back; nothing is kept beside its input.

The result has the type that the products behind it take, so that it is converted once and not by each of them.
"""

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
from unmask.nn.lines import KINDS, bytes_of, float_bits, narrow, to_float, widen
from unmask.nn.products import floats
from unmask.nn.threads import HEADER, member, share
from unmask.nn.tiles import LANES, squares, total

_WHAT, _ROWS, _WIDTH, _EPS, _X, _X_KIND, _WEIGHT, _Y, _Y_KIND, _OF_X, _OF_WEIGHT, _SCRATCH = range(
    HEADER, HEADER + 12
)
_SIZE = HEADER + 12
#: Parts of the rows, each of which adds up a weight's gradient for itself: the same for any number of threads.
_PARTS = 16


def rms_norm(x: Tensor, weight: Tensor, eps: float, kind: torch.dtype) -> Tensor:
    """x / √(mean x² + eps) · weight over the last dimension, of the type asked for.

    Args:
        x: (…, width) float32 or bfloat16.
        weight: (width,) float32.
        kind: float32 or bfloat16.
    """
    return _RMSNorm.apply(x, weight, eps, kind)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, kind: torch.dtype) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        y = torch.empty(x.shape, dtype=kind)
        _run(0, x, weight, eps, y, None, None)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight = torch.empty_like(x), torch.zeros(_PARTS, len(weight))
        _run(1, x, weight, ctx.eps, above.contiguous(), of_x, of_weight)
        return of_x, of_weight.sum(0), None, None


def _run(
    what: int,
    x: Tensor,
    weight: Tensor,
    eps: float,
    y: Tensor,
    of_x: Tensor | None,
    of_weight: Tensor | None,
) -> None:
    width = x.shape[-1]
    line = -(-width // LANES) * LANES
    scratch = torch.empty(torch.get_num_threads() * 3 * line)
    table = np.zeros(_SIZE, dtype=np.int64)
    table[HEADER:] = (
        what,
        x.numel() // width,
        width,
        float_bits(eps),
        x.data_ptr(),
        KINDS[x.dtype],
        weight.data_ptr(),
        y.data_ptr(),
        KINDS[y.dtype],
        0 if of_x is None else of_x.data_ptr(),
        0 if of_weight is None else of_weight.data_ptr(),
        scratch.data_ptr(),
    )
    threads.run(_compiled().address, table)


@njit(error_model="numpy")
def _scaled(table: Any, row: int, scratch: int) -> Any:
    """A line of x at the scratch, filled up with zeros, and 1 / √(mean x² + eps)."""
    width = table[_WIDTH]
    vectors = (width + LANES - 1) // LANES
    x = floats(scratch, vectors * LANES)
    widen(table[_X_KIND], table[_X] + row * width * bytes_of(table[_X_KIND]), x, width, np.float32(1.0))
    for i in range(width, vectors * LANES):
        x[i] = np.float32(0.0)
    mean = squares(scratch, vectors) / np.float32(width)
    return np.float32(1.0) / np.sqrt(mean + to_float(table[_EPS]))


@njit
def _forward(table: Any, row: int, scratch: int) -> None:
    width = table[_WIDTH]
    scale = _scaled(table, row, scratch)
    x, weight = floats(scratch, width), floats(table[_WEIGHT], width)
    for i in range(width):
        x[i] *= weight[i]
    narrow(table[_Y_KIND], x, table[_Y] + row * width * bytes_of(table[_Y_KIND]), width, scale)


@njit(error_model="numpy")
def _backward(table: Any, row: int, of_weight: Any, scratch: int) -> None:
    # With n = x · scale and g = above · weight: scale · (g - n · mean(g · n)).
    width, one = table[_WIDTH], np.float32(1.0)
    vectors = (width + LANES - 1) // LANES
    line = vectors * LANES * 4
    scale = _scaled(table, row, scratch)
    x, weight = floats(scratch, width), floats(table[_WEIGHT], width)
    above, product = floats(scratch + line, width), floats(scratch + 2 * line, vectors * LANES)
    widen(table[_Y_KIND], table[_Y] + row * width * bytes_of(table[_Y_KIND]), above, width, one)
    for i in range(width):
        x[i] *= scale
        product[i] = above[i] * x[i]
        of_weight[i] += product[i]
        product[i] *= weight[i]
        above[i] *= weight[i]
    for i in range(width, vectors * LANES):
        product[i] = np.float32(0.0)
    mean = total(scratch + 2 * line, vectors) / np.float32(width)
    for i in range(width):
        above[i] -= x[i] * mean
    narrow(table[_X_KIND], above, table[_OF_X] + row * width * bytes_of(table[_X_KIND]), width, scale)


@njit
def _part(table: Any) -> None:
    """The calling thread's parts of the rows."""
    me, members = member(table)
    rows, width = table[_ROWS], table[_WIDTH]
    scratch = table[_SCRATCH] + me * 3 * ((width + LANES - 1) // LANES) * LANES * 4
    first, last = share(_PARTS, me, members)
    for part in range(first, last):
        begin, end = share(rows, part, _PARTS)
        for row in range(begin, end):
            if table[_WHAT] == 0:
                _forward(table, row, scratch)
            else:
                _backward(table, row, floats(table[_OF_WEIGHT] + part * width * 4, width), scratch)


@cache
def _compiled() -> Any:
    version = version_of(lines)

    def norm(address: Any) -> None:
        if version >= 0:
            _part(carray(address, (_SIZE,), np.int64))

    return c_function(norm)
