"""Cross-entropy of a chunk of logits on a CPU, compiled: a row's loss and its gradient in one pass."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numba import carray, njit
from torch import Tensor

from unmask.nn import lines, threads
from unmask.nn.compiled import c_function, version_of
from unmask.nn.lines import KINDS, bytes_of, narrow, widen
from unmask.nn.products import floats
from unmask.nn.threads import HEADER, member, pointer, share
from unmask.nn.tiles import LANES, largest, total
from unmask.nn.vectors import exp_behind

_KIND, _ROWS, _WIDTH, _LOGITS, _BIAS, _TARGETS, _COUNTS, _LOSSES, _GRADIENT, _OF_BIAS, _SCRATCH = range(
    HEADER, HEADER + 11
)
_SIZE = HEADER + 11
#: Parts of the rows, each of which adds up the bias' gradient for itself: the same for any number of threads.
_PARTS = 8


def cross_entropy_(
    logits: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    counts: Tensor | None = None,
    *,
    gradient: bool = True,
    of_bias: Tensor | None = None,
) -> Tensor:
    """-log softmax(logits + bias) at the targets, times what each row counts; the logits become their gradient.

    Args:
        logits: (rows, vocabulary) contiguous, float32 or bfloat16, overwritten.
        targets: (rows,) int64.
        bias: (vocabulary,) float32.
        counts: (rows,) float32; None: 1.
        gradient: whether it is wanted; without it the logits stay as they are.
        of_bias: (vocabulary,) float32, to which the bias' gradient is added.

    Returns:
        (rows,) float32, in nats.
    """
    rows, width = logits.shape
    line = -(-width // LANES) * LANES
    losses = torch.empty(rows)
    targets = targets.contiguous()
    counts = torch.ones(rows) if counts is None else counts.float().contiguous()
    bias = None if bias is None else bias.detach().contiguous()
    parts = None if of_bias is None else torch.zeros(_PARTS, width)
    scratch = torch.empty(torch.get_num_threads() * line)
    table = np.zeros(_SIZE, dtype=np.int64)
    table[HEADER:] = (
        KINDS[logits.dtype],
        rows,
        width,
        logits.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        targets.data_ptr(),
        counts.data_ptr(),
        losses.data_ptr(),
        gradient,
        0 if parts is None else parts.data_ptr(),
        scratch.data_ptr(),
    )
    threads.run(_compiled().address, table)
    if of_bias is not None and parts is not None:
        of_bias += parts.sum(0)
    return losses


@njit(error_model="numpy")
def _row(table: Any, row: int, of_bias: int, scratch: int) -> None:
    kind, width, one = table[_KIND], table[_WIDTH], np.float32(1.0)
    vectors = (width + LANES - 1) // LANES
    place = table[_LOGITS] + row * width * bytes_of(kind)
    target = carray(pointer(table[_TARGETS] + row * 8), (1,), np.int64)[0]
    count = floats(table[_COUNTS] + row * 4, 1)[0]
    x = floats(scratch, vectors * LANES)
    widen(kind, place, x, width, one)
    if table[_BIAS] != 0:
        bias = floats(table[_BIAS], width)
        for i in range(width):
            x[i] += bias[i]
    for i in range(width, vectors * LANES):
        x[i] = np.float32(-np.inf)
    peak, wanted = largest(scratch, vectors), x[target]
    for block in range(vectors):
        exp_behind(scratch + block * LANES * 4, peak)
    weight = total(scratch, vectors)
    floats(table[_LOSSES] + row * 4, 1)[0] = (np.log(weight) + peak - wanted) * count
    if table[_GRADIENT] == 0:
        return
    scale = count / weight
    x[target] -= weight
    if of_bias != 0:
        added = floats(of_bias, width)
        for i in range(width):
            added[i] += x[i] * scale
    narrow(kind, x, place, width, scale)


@njit
def _part(table: Any) -> None:
    """The calling thread's parts of the rows."""
    me, members = member(table)
    width = table[_WIDTH]
    scratch = table[_SCRATCH] + me * ((width + LANES - 1) // LANES) * LANES * 4
    first, last = share(_PARTS, me, members)
    for part in range(first, last):
        begin, end = share(table[_ROWS], part, _PARTS)
        of_bias = 0 if table[_OF_BIAS] == 0 else table[_OF_BIAS] + part * width * 4
        for row in range(begin, end):
            _row(table, row, of_bias, scratch)


@cache
def _compiled() -> Any:
    version = version_of(lines)

    def cross_entropy(address: Any) -> None:
        if version >= 0:
            _part(carray(address, (_SIZE,), np.int64))

    return c_function(cross_entropy)
