"""A whole product on all threads: rows prepared, tiles multiplied, results put where they belong.

Everything here is compiled and called by each thread of a team with the same arguments (`unmask.nn.threads`); a
team's threads share the panels of the weight. What divides floats does so as NumPy (`error_model`): an exception,
say over a model whose weights are not finite, would take one thread away from where the others wait for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit

from unmask.nn.threads import pointer, share, wait
from unmask.nn.tiles import (
    BYTES,
    INPUTS,
    INT8,
    KIND,
    LANES,
    OFFSETS,
    OUTPUTS,
    ROWS,
    SCALES,
    TILE_BYTES,
    WEIGHTS,
    activation_steps,
    largest_size,
    multiply,
    panel_bytes,
    panels_at_once,
    round_vector,
    settle,
    squares,
)
from unmask.nn.vectors import activate

#: What becomes of a result: written; its activation written; added to what is there; the activation of every
#: first panel times every second one (weights from `tiles.interleave`).
STORE, ACTIVATE, ADD, GATE = range(4)

#: Up to so many rows are prepared by each thread for itself: cheaper than waiting for one another.
_OWN_ROWS = 8
#: Rows whose activations stay in a core's cache while all panels pass.
_CACHED = 1 << 18


def scratch_bytes(threads: int, rows: int, inputs: int) -> int:
    """What `product` needs: each thread's sums; rows' factors and whole numbers, of each thread or of all."""
    return threads * TILE_BYTES + _prepared_rows(threads, rows) * (4 + _line_bytes(inputs))


@njit
def _prepared_rows(threads: int, rows: int) -> int:
    return max(threads * _OWN_ROWS, rows)


@njit
def _line_bytes(inputs: int) -> int:
    """Bytes of a row of whole numbers, which are written a vector at a time."""
    return -(-inputs // LANES) * LANES * BYTES


@njit
def numbers(address: int, count: int) -> Any:
    """`count` int64 at an address."""
    return carray(pointer(address), (count,), np.int64)


@njit
def floats(address: int, count: int) -> Any:
    """`count` float32 at an address."""
    return carray(pointer(address), (count,), np.float32)


@njit(error_model="numpy")
def _norm_factor(x: int, width: int, floor: Any) -> Any:
    """1 / √(|x|² + floor)."""
    whole = width // LANES
    length = np.float64(squares(x, whole))
    rest = floats(x + whole * LANES * 4, width - whole * LANES)
    for value in rest:
        length += np.float64(value) * np.float64(value)
    return np.float32(1.0 / np.sqrt(length + floor))


@njit(error_model="numpy")
def _prepare_row(x: int, width: int, floor: Any, rounded: int, steps: int, spare: int) -> Any:
    """One row's factor; for int8 (`steps` > 0) also its whole numbers, written to `rounded`.

    Args:
        floor: of the norm, or negative where there is none.
        steps: the largest whole number.
        spare: room for one vector.
    """
    factor = _norm_factor(x, width, floor) if floor >= 0 else np.float32(1.0)
    if steps == 0:
        return factor
    whole = width // LANES
    size = largest_size(x, whole)
    for value in floats(x + whole * LANES * 4, width - whole * LANES):
        size = max(size, abs(value))
    size = max(size, np.float32(1e-30))
    scale = np.float32(steps) / size
    for vector in range(whole):
        round_vector(x + vector * LANES * 4, scale, rounded + vector * LANES * BYTES)
    if whole * LANES < width:
        # The last, incomplete vector: with zeros behind it, which the weights' padding meets.
        last, rest = floats(spare, LANES), floats(x + whole * LANES * 4, width - whole * LANES)
        for i in range(LANES):
            last[i] = rest[i] if i < rest.size else np.float32(0.0)
        round_vector(spare, scale, rounded + whole * LANES * BYTES)
    return factor * size / np.float32(steps)


@njit
def _deliver(
    sums: int,
    rows: int,
    panels: int,
    int8: bool,
    scales: int,
    offsets: int,
    bias: int,
    factors: Any,
    first_panel: int,
    outputs: int,
    out: int,
    out_stride: int,
    places: int,
    first_row: int,
    ending: int,
    activation: int,
) -> None:
    """A tile's sums as results in their place."""
    if ending in (ACTIVATE, GATE):
        _settle_here(sums, rows, panels, int8, scales, offsets, bias, factors, first_row)
        if ending == ACTIVATE:
            activate(activation, sums, rows * panels)
    for row in range(rows):
        place = first_row + row
        factor = factors[place]
        if places != 0:
            place = numbers(places, place + 1)[place]
        line = out + place * out_stride
        for panel in range(panels):
            here = sums + (row * panels + panel) * LANES * 4
            begin = (first_panel + panel) * LANES
            if ending == GATE:
                if panel % 2 == 0:
                    activate(activation, here, 1)
                    continue
                _multiply_into(here - LANES * 4, here)
                begin = (first_panel + panel) // 2 * LANES
            elif ending != ACTIVATE:
                beside = panel * LANES * 4
                fits = begin + LANES <= outputs
                settle(
                    int8,
                    fits and ending == ADD,
                    here,
                    scales + beside,
                    offsets + beside,
                    0 if bias == 0 else bias + beside,
                    factor,
                    line + begin * 4 if fits else here,
                )
                if fits:
                    continue
            values, to = floats(here, LANES), floats(line + begin * 4, LANES)
            for i in range(min(LANES, outputs - begin)):
                to[i] = to[i] + values[i] if ending == ADD else values[i]


@njit
def _settle_here(
    sums: int,
    rows: int,
    panels: int,
    int8: bool,
    scales: int,
    offsets: int,
    bias: int,
    factors: Any,
    first_row: int,
) -> None:
    """A tile's sums as float32 results where they are."""
    for row in range(rows):
        for panel in range(panels):
            here, beside = sums + (row * panels + panel) * LANES * 4, panel * LANES * 4
            added = 0 if bias == 0 else bias + beside
            factor = factors[first_row + row]
            settle(int8, False, here, scales + beside, offsets + beside, added, factor, here)


@njit
def _multiply_into(one: int, other: int) -> None:
    factors, values = floats(one, LANES), floats(other, LANES)
    for i in range(LANES):
        values[i] = values[i] * factors[i]


@njit
def product(
    team: Any,
    me: int,
    threads: int,
    weight: Any,
    x: int,
    x_stride: int,
    rows: int,
    floor: Any,
    out: int,
    out_stride: int,
    places: int,
    bias: int,
    ending: int,
    activation: int,
    scratch: int,
) -> None:
    """out = act(normalise(x) Wᵀ), or out += it; every thread of the team calls this. Ends without waiting.

    Args:
        team: the table of `threads.run`; me, threads: from `threads.member`.
        weight: FIELDS numbers of `Panels.line`.
        x: address of (rows, inputs) float32.
        floor: width · eps of the norm that x goes through (its weight and √width are in W), negative for none.
        bias: address of one float32 an output, whole panels of them; 0: none.
        places: address of each row's place in `out` (int64); 0: row i is at i.
        ending: STORE, ACTIVATE, ADD or GATE.
        scratch: `scratch_bytes`.
    """
    kind, inputs, outputs = weight[KIND], weight[INPUTS], weight[OUTPUTS]
    steps = activation_steps(inputs) if kind == INT8 else 0
    line = _line_bytes(inputs)
    sums = scratch + me * TILE_BYTES
    factors_at = scratch + threads * TILE_BYTES
    rounded = factors_at + _prepared_rows(threads, rows) * 4
    begin, end = 0, rows
    if rows <= _OWN_ROWS:
        factors_at += me * _OWN_ROWS * 4
        rounded += me * _OWN_ROWS * line
    else:
        begin, end = share(rows, me, threads)
    factors = floats(factors_at, rows)
    for row in range(begin, end):
        factors[row] = _prepare_row(x + row * x_stride, inputs, floor, rounded + row * line, steps, sums)
    if rows > _OWN_ROWS:
        wait(team, threads)
    if kind == INT8:
        x, x_stride = rounded, line
    unit = 2 if ending == GATE else 1
    panels = -(-outputs // LANES) * unit
    first, last = share(panels // unit, me, threads)
    first, last = first * unit, last * unit
    chunk = max(ROWS, _CACHED // x_stride)
    stride = panel_bytes(kind, inputs)
    for chunk_begin in range(0, rows, chunk):
        chunk_end = min(rows, chunk_begin + chunk)
        tiles = -(-(chunk_end - chunk_begin) // ROWS)
        tallest = -(-(chunk_end - chunk_begin) // tiles)
        at_once = panels_at_once(tallest)
        panel = first
        while panel < last:
            wide = at_once if panel + at_once <= last else 1
            if ending == GATE and wide == 1:
                wide = 2
            scales = weight[SCALES] + panel * LANES * 4
            offsets = weight[OFFSETS] + panel * LANES * 4
            for tile in range(tiles):
                top, bottom = share(chunk_end - chunk_begin, tile, tiles)
                top, height = chunk_begin + top, bottom - top
                source = x + top * x_stride
                columns = weight[WEIGHTS] + panel * stride
                together = wide if wide == at_once else 1
                for part in range(0, wide, together):
                    multiply(
                        kind,
                        height,
                        together,
                        sums + part * LANES * 4,
                        wide * LANES * 4,
                        source,
                        x_stride,
                        columns + part * stride,
                        inputs,
                    )
                _deliver(
                    sums,
                    height,
                    wide,
                    kind == INT8,
                    scales,
                    offsets,
                    0 if bias == 0 else bias + panel * LANES * 4,
                    factors,
                    panel,
                    outputs,
                    out,
                    out_stride,
                    places,
                    top,
                    ending,
                    activation,
                )
            panel += wide
