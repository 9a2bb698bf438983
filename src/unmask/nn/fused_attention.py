"""Softmax attention of a few queries over one head's keys, compiled, for one thread.

Scores are added up component by component, results key by key: in the same order whatever is around them.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from unmask.nn.products import floats
from unmask.nn.tiles import LANES, ROWS, combine, largest, total
from unmask.nn.vectors import exp_behind


def score_floats(keys: int, width: int) -> int:
    """float32 that `attend` needs for its scores and results: the same number for every line."""
    return ROWS * (-(-keys // LANES) * LANES + -(-width // LANES) * LANES)


@njit(error_model="numpy")
def attend(
    kind: int,
    rows: int,
    queries: int,
    query_stride: int,
    keys: int,
    key_step: int,
    values: int,
    value_step: int,
    width: int,
    value_blocks: int,
    length: int,
    bias: int,
    out: int,
    out_stride: int,
    scores: int,
    score_stride: int,
) -> None:
    """Attention of at most ROWS queries over the first `length` keys; addresses, strides and steps in bytes.

    Args:
        kind: of keys and values, FLOAT32 or FLOAT16.
        queries: (rows, width) float32, times the scale.
        keys: (width, ≥ length filled up to LANES): component by component, `key_step` apart.
        values: (length, width), each `value_step` behind the one before, in `value_blocks` whole vectors.
        bias: one number a key is added to its score; 0: none.
        out: (rows, width) float32.
        scores: room as `score_floats` says; lines of scores are `score_stride` apart.
    """
    blocks = -(-length // LANES)
    combine(kind, rows, blocks, scores, score_stride, queries, query_stride, keys, key_step, width)
    for row in range(rows):
        _weigh(scores + row * score_stride, length, blocks, bias)
    mixed, line = scores + ROWS * score_stride, value_blocks * LANES * 4
    combine(kind, rows, value_blocks, mixed, line, scores, score_stride, values, value_step, length)
    for row in range(rows):
        scale = np.float32(1.0) / total(scores + row * score_stride, blocks)
        result, place = floats(mixed + row * line, width), floats(out + row * out_stride, width)
        for i in range(width):
            place[i] = result[i] * scale


@njit
def _weigh(line: int, length: int, blocks: int, bias: int) -> None:
    """Scores become e^(score - the largest), 0 behind `length`."""
    scores = floats(line, blocks * LANES)
    if bias != 0:
        added = floats(bias, length)
        for i in range(length):
            scores[i] += added[i]
    for i in range(length, blocks * LANES):
        scores[i] = np.float32(-np.inf)
    peak = largest(line, blocks)
    for block in range(blocks):
        exp_behind(line + block * LANES * 4, peak)
