"""Softmax of attention scores and its gradient on a CPU, compiled: one pass over each line where PyTorch makes five.

Scores are float32 or bfloat16, lines along the keys; everything in between is float32. A line's weights depend on that
line alone, and a bias' gradient adds up its texts in their order: the bits do not depend on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import carray, njit
from torch import Tensor

from unmask.nn import dropout as masks
from unmask.nn import lines as line_forms
from unmask.nn import threads
from unmask.nn.compiled import c_function, version_of
from unmask.nn.dropout import _bits as bits
from unmask.nn.lines import KINDS, bytes_of, clear, float_bits, narrow, to_float, widen
from unmask.nn.products import floats
from unmask.nn.threads import HEADER, member, pointer, share
from unmask.nn.tiles import LANES, largest, total
from unmask.nn.vectors import exp_behind

(
    _GRADIENT,
    _KIND,
    _SCORES,
    _OTHER,
    _TEXTS,
    _HEADS,
    _QUERIES,
    _KEYS,
    _QUERY_LENGTHS,
    _KEY_LENGTHS,
    _CAUSAL,
    _SCALE,
    _BIAS,
    _BIAS_HEAD,
    _BIAS_QUERY,
    _BIAS_GRADIENT,
    _GRADIENT_HEAD,
    _GRADIENT_QUERY,
    _SCRATCH,
    _SCRATCH_LINE,
    _NUMBERS,
    _KEY,
    _THRESHOLD,
    _KEPT,
) = range(HEADER, HEADER + 24)
_SIZE = HEADER + 24


@dataclass(frozen=True, eq=False)
class Lines:
    """What the lines of a rectangle of scores (texts, heads, queries, keys) have in common.

    Attributes:
        query_lengths, key_lengths: (texts,) int64; what is beyond them has the weight 0.
        causal: a query sees keys up to its own position.
        scale: of the scores.
        bias: (heads, ≥ queries, ≥ keys) float32, the last dimension dense; None: none.
        rate: of dropout.
        key: of the dropout.
        rows: (texts,) int64, the numbers of the texts in the whole batch; a weight's mask depends on the key, its
            text's number, head, query and key alone.
    """

    query_lengths: np.ndarray[Any, np.dtype[np.int64]]
    key_lengths: np.ndarray[Any, np.dtype[np.int64]]
    causal: bool
    scale: float
    bias: Tensor | None
    rate: float
    key: int
    rows: np.ndarray[Any, np.dtype[np.int64]]


def softmax_(scores: Tensor, lines: Lines) -> Tensor:
    """Scores become weights, in place; what is left of them after dropout is returned, where there is any.

    Args:
        scores: (texts, heads, queries, keys) contiguous, before scale and bias.
    """
    dropped = torch.empty_like(scores) if lines.rate else scores
    _run(0, scores, dropped, lines, None)
    return dropped


def softmax_gradient_(weights: Tensor, gradient: Tensor, lines: Lines, bias_gradient: Tensor | None) -> None:
    """The gradient of what `softmax_` returned becomes that of the products q kᵀ, in place.

    Args:
        weights: as `softmax_` left them, before dropout.
        bias_gradient: like the bias; this is added to it.
    """
    _run(1, gradient, weights, lines, bias_gradient)


def _run(what: int, first: Tensor, other: Tensor, lines: Lines, bias_gradient: Tensor | None) -> None:
    texts, heads, queries, keys = first.shape
    line = -(-keys // LANES) * LANES
    scratch = torch.empty(torch.get_num_threads() * 2 * line, dtype=torch.float32)
    table = np.zeros(_SIZE, dtype=np.int64)
    table[HEADER:] = (
        what,
        KINDS[first.dtype],
        first.data_ptr(),
        other.data_ptr(),
        texts,
        heads,
        queries,
        keys,
        lines.query_lengths.ctypes.data,
        lines.key_lengths.ctypes.data,
        lines.causal,
        float_bits(lines.scale),
        *_address(lines.bias),
        *_address(bias_gradient),
        scratch.data_ptr(),
        line * 4,
        lines.rows.ctypes.data,
        lines.key,
        round(lines.rate * 2**32),
        float_bits(1.0 / (1.0 - lines.rate)),
    )
    threads.run(_compiled().address, table)


def _address(bias: Tensor | None) -> tuple[int, int, int]:
    """Where it is, and the bytes from a head and from a query to the next; zeros for none."""
    return (0, 0, 0) if bias is None else (bias.data_ptr(), bias.stride(0) * 4, bias.stride(1) * 4)


@njit
def _mask(table: Any, text: int, head: int, query: int, x: Any, count: int) -> None:
    """Zeros where the bits of a place are below the rate; a line's key is made of its number and the dropout's."""
    row = carray(pointer(table[_NUMBERS] + text * 8), (1,), np.int64)[0]
    key, threshold = table[_KEY], np.uint32(table[_THRESHOLD])
    lower, upper = np.uint32((head << 24) + query), np.uint32(row)
    low = bits(lower, np.uint32(key & 0xFFFFFFFF), upper)
    high = bits(upper, np.uint32(key >> 32), lower)
    for i in range(count):
        x[i] = x[i] if bits(i, low, high) >= threshold else np.float32(0.0)


@njit(error_model="numpy")
def _forward(table: Any, text: int, head: int, query: int, valid: int, scratch: int) -> None:
    kind, keys = table[_KIND], table[_KEYS]
    size = bytes_of(kind)
    line = (text * table[_HEADS] + head) * table[_QUERIES] + query
    place = table[_SCORES] + line * keys * size
    blocks = (valid + LANES - 1) // LANES
    x = floats(scratch, blocks * LANES)
    widen(kind, place, x, valid, to_float(table[_SCALE]))
    if table[_BIAS] != 0:
        bias = floats(table[_BIAS] + head * table[_BIAS_HEAD] + query * table[_BIAS_QUERY], valid)
        for i in range(valid):
            x[i] += bias[i]
    for i in range(valid, blocks * LANES):
        x[i] = np.float32(-np.inf)
    peak = largest(scratch, blocks)
    for block in range(blocks):
        exp_behind(scratch + block * LANES * 4, peak)
    inverse = np.float32(1.0) / total(scratch, blocks)
    narrow(kind, x, place, valid, inverse)
    clear(kind, place + valid * size, keys - valid)
    if table[_THRESHOLD] != 0:
        dropped = table[_OTHER] + line * keys * size
        _mask(table, text, head, query, x, valid)
        narrow(kind, x, dropped, valid, inverse * to_float(table[_KEPT]))
        clear(kind, dropped + valid * size, keys - valid)


@njit
def _backward(table: Any, text: int, head: int, query: int, valid: int, scratch: int) -> None:
    kind, keys = table[_KIND], table[_KEYS]
    size = bytes_of(kind)
    line = (text * table[_HEADS] + head) * table[_QUERIES] + query
    place, blocks = table[_SCORES] + line * keys * size, (valid + LANES - 1) // LANES
    second = scratch + table[_SCRATCH_LINE]
    gradient, weights = floats(scratch, valid), floats(second, blocks * LANES)
    one = np.float32(1.0)
    widen(kind, place, gradient, valid, to_float(table[_KEPT]))
    if table[_THRESHOLD] != 0:
        _mask(table, text, head, query, gradient, valid)
    widen(kind, table[_OTHER] + line * keys * size, weights, valid, one)
    for i in range(valid, blocks * LANES):
        weights[i] = np.float32(0.0)
    for i in range(valid):
        weights[i] *= gradient[i]
    mean = total(second, blocks)
    # weight · (gradient - mean), of which the first product is there.
    scores = gradient
    widen(kind, table[_OTHER] + line * keys * size, scores, valid, mean)
    for i in range(valid):
        scores[i] = weights[i] - scores[i]
    if table[_BIAS_GRADIENT] != 0:
        of_line = head * table[_GRADIENT_HEAD] + query * table[_GRADIENT_QUERY]
        bias = floats(table[_BIAS_GRADIENT] + of_line, valid)
        for i in range(valid):
            bias[i] += scores[i]
    narrow(kind, scores, place, valid, to_float(table[_SCALE]))
    clear(kind, place + valid * size, keys - valid)


@njit
def _part(table: Any) -> None:
    """The calling thread's heads and queries, for all texts: no other thread adds to the same line of a bias."""
    me, members = member(table)
    texts, heads, queries, keys = table[_TEXTS], table[_HEADS], table[_QUERIES], table[_KEYS]
    query_lengths = carray(pointer(table[_QUERY_LENGTHS]), (texts,), np.int64)
    key_lengths = carray(pointer(table[_KEY_LENGTHS]), (texts,), np.int64)
    scratch = table[_SCRATCH] + me * 2 * table[_SCRATCH_LINE]
    size = bytes_of(table[_KIND])
    first, last = share(heads * queries, me, members)
    for row in range(first, last):
        head, query = row // queries, row % queries
        for text in range(texts):
            line = text * heads * queries + row
            valid = min(key_lengths[text], query + 1) if table[_CAUSAL] else key_lengths[text]
            if query >= query_lengths[text]:
                clear(table[_KIND], table[_SCORES] + line * keys * size, keys)
                if table[_GRADIENT] == 0 and table[_THRESHOLD] != 0:
                    clear(table[_KIND], table[_OTHER] + line * keys * size, keys)
            elif table[_GRADIENT] == 0:
                _forward(table, text, head, query, valid, scratch)
            else:
                _backward(table, text, head, query, valid, scratch)


@cache
def _compiled() -> Any:
    version = version_of(line_forms, masks)

    def softmax(address: Any) -> None:
        if version >= 0:
            _part(carray(address, (_SIZE,), np.int64))

    return c_function(softmax)
