"""A draw from each row of logits on a CPU, compiled: what `nn.sampling.sample` does, in one pass over a row."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numba import carray, njit
from torch import Tensor

from unmask.nn import lines, threads
from unmask.nn.compiled import c_function, version_of
from unmask.nn.lines import KINDS, bytes_of, float_bits, to_float, widen
from unmask.nn.products import floats
from unmask.nn.threads import HEADER, member, pointer, share
from unmask.nn.tiles import LANES, largest, total
from unmask.nn.vectors import exp_behind

_KIND, _ROWS, _WIDTH, _LOGITS, _FACTOR, _UNIFORMS, _DRAWN, _LIKELIEST, _SCRATCH = range(HEADER, HEADER + 9)
_SIZE = HEADER + 9
#: As `nn.sampling` counts probabilities.
_UNITS = np.float32(2.0**40)
#: Numbers that are added up before one is looked for among them.
_BLOCK = 1024


def sample_rows(logits: Tensor, uniforms: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(rows, vocabulary) float32 or bfloat16 → what is drawn and what is likeliest, (rows,) int64 each.

    Args:
        uniforms: (rows,) float64 in [0, 1).
        temperature: above 0.
    """
    logits, uniforms = logits.contiguous(), uniforms.contiguous()
    rows, width = logits.shape
    drawn, likeliest = torch.empty(2, rows, dtype=torch.int64)
    scratch = torch.empty(torch.get_num_threads() * -(-width // LANES) * LANES)
    table = np.zeros(_SIZE, dtype=np.int64)
    tensors = (tensor.data_ptr() for tensor in (uniforms, drawn, likeliest, scratch))
    table[HEADER:] = (
        KINDS[logits.dtype],
        rows,
        width,
        logits.data_ptr(),
        float_bits(1 / temperature),
        *tensors,
    )
    threads.run(_compiled().address, table)
    return drawn, likeliest


@njit
def _units(x: Any, begin: int, end: int, scale: Any) -> Any:
    """The probabilities of some, in whole units."""
    units = np.int64(0)
    for i in range(begin, end):
        units += np.int64(x[i] * scale)
    return units


@njit(error_model="numpy")
def _row(table: Any, row: int, scratch: int) -> None:
    kind, width = table[_KIND], table[_WIDTH]
    vectors = (width + LANES - 1) // LANES
    x = floats(scratch, vectors * LANES)
    widen(kind, table[_LOGITS] + row * width * bytes_of(kind), x, width, to_float(table[_FACTOR]))
    for i in range(width, vectors * LANES):
        x[i] = np.float32(-np.inf)
    peak, first = largest(scratch, vectors), 0
    while first < width - 1 and x[first] != peak:
        first += 1
    carray(pointer(table[_LIKELIEST] + row * 8), (1,), np.int64)[0] = first
    for block in range(vectors):
        exp_behind(scratch + block * LANES * 4, peak)
    scale = _UNITS / total(scratch, vectors)
    units = _units(x, 0, width, scale)
    uniform = carray(pointer(table[_UNIFORMS] + row * 8), (1,), np.float64)[0]
    # The bound is for a uniform that rounds up to 1 when multiplied.
    level, height, begin = min(np.int64(uniform * units), units - 1), np.int64(0), 0
    while begin + _BLOCK < width:
        of_block = _units(x, begin, begin + _BLOCK, scale)
        if height + of_block > level:
            break
        height += of_block
        begin += _BLOCK
    place = begin
    while place < width - 1:
        height += np.int64(x[place] * scale)
        if height > level:
            break
        place += 1
    carray(pointer(table[_DRAWN] + row * 8), (1,), np.int64)[0] = place


@njit
def _part(table: Any) -> None:
    """The calling thread's rows."""
    me, members = member(table)
    scratch = table[_SCRATCH] + me * ((table[_WIDTH] + LANES - 1) // LANES) * LANES * 4
    first, last = share(table[_ROWS], me, members)
    for row in range(first, last):
        _row(table, row, scratch)


@cache
def _compiled() -> Any:
    version = version_of(lines)

    def sampling(address: Any) -> None:
        if version >= 0:
            _part(carray(address, (_SIZE,), np.int64))

    return c_function(sampling)
