"""ELECTRA's layers on a CPU as one compiled function: a thread takes some texts through all layers by itself.

Texts do not see each other, so threads need not wait for each other: each draws the next few texts and runs them
through every layer, their activations in its own cache. A lone text is shared by all threads instead. Nothing is
padded, nothing sorted, and the bits of a text's result depend on that text alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numba import carray, njit
from torch import Tensor

from unmask.nn import fused_attention, products, threads, tiles
from unmask.nn.compiled import c_function, version_of
from unmask.nn.fused_attention import attend, score_floats
from unmask.nn.products import ACTIVATE, ADD, STORE, floats, numbers, product
from unmask.nn.threads import HEADER, draw, member, pointer, share, wait
from unmask.nn.tiles import FIELDS, FLOAT32, LANES, ROWS, Panels, squares, total
from unmask.nn.vectors import ACTIVATIONS

#: Tokens of the texts that a thread takes at a time: their activations stay in its cache.
CREW_TOKENS = 192

(
    _ACTIVATION,
    _HEADS,
    _HEAD_WIDTH,
    _WIDTH,
    _WIDE,
    _EPS,
    _LAYERS,
    _LAYER_LINES,
    _STREAM,
    _STARTS,
    _PIECES,
    _PIECE_COUNT,
    _NEXT,
    _ALONE,
    _LONGEST,
    _PROJECTED,
    _MIXED,
    _BETWEEN,
    _TRANSPOSED,
    _SCORES,
    _SCRATCH,
    _PROJECTED_ROOM,
    _MIXED_ROOM,
    _BETWEEN_ROOM,
    _SCRATCH_ROOM,
    _FIRSTS,
    _SIZE,
) = range(HEADER, HEADER + 27)

# A layer's line: its weights, then the addresses of biases and norms.
_QKV, _OUT, _UP, _DOWN = (FIELDS * part for part in range(4))
_QKV_BIAS, _OUT_BIAS, _UP_BIAS, _DOWN_BIAS = range(4 * FIELDS, 4 * FIELDS + 4)
_NORM, _NORM_BIAS, _LAST_NORM, _LAST_NORM_BIAS, _LINE = range(4 * FIELDS + 4, 4 * FIELDS + 9)


@njit(error_model="numpy")
def _layer_norm(x: int, width: int, weight: int, bias: int, eps: Any) -> None:
    """One row, in place; the width is a multiple of LANES."""
    vectors = width // LANES
    values, factors, addends = floats(x, width), floats(weight, width), floats(bias, width)
    mean = total(x, vectors) / np.float32(width)
    for i in range(width):
        values[i] -= mean
    scale = np.float32(1.0 / np.sqrt(np.float64(squares(x, vectors)) / width + eps))
    for i in range(width):
        values[i] = values[i] * scale * factors[i] + addends[i]


@njit
def _layer_norms(
    x: int, rows: int, width: int, weight: int, bias: int, eps: Any, me: int, members: int
) -> None:
    begin, end = share(rows, me, members)
    for row in range(begin, end):
        _layer_norm(x + row * width * 4, width, weight, bias, eps)


@njit
def _attention(
    table: Any,
    projected: int,
    mixed: int,
    starts: Any,
    first_text: int,
    last_text: int,
    only_first: bool,
    me: int,
    members: int,
    thread: int,
) -> None:
    """Each text's tokens among themselves; with `only_first`, each text's first token alone, side by side."""
    heads, width, inner = table[_HEADS], table[_HEAD_WIDTH], table[_WIDTH]
    stride, room = 3 * inner * 4, -(-table[_LONGEST] // LANES) * LANES
    transposed = table[_TRANSPOSED] + thread * width * room * 4
    scores = table[_SCORES] + thread * ROWS * (room + width) * 4
    begin, end = share((last_text - first_text) * heads, me, members)
    for unit in range(begin, end):
        text, head = first_text + unit // heads, unit % heads
        first, length = starts[text] - starts[first_text], starts[text + 1] - starts[text]
        line = -(-length // LANES) * LANES
        queries = projected + first * stride + head * width * 4
        keys = floats(transposed, width * line)
        for token in range(length):
            key = floats(queries + token * stride + inner * 4, width)
            for i in range(width):
                keys[i * line + token] = key[i]
        place = text - first_text if only_first else first
        out = mixed + (place * inner + head * width) * 4
        asked = 1 if only_first else length
        for token in range(0, asked, ROWS):
            attend(
                FLOAT32,
                min(ROWS, asked - token),
                queries + token * stride,
                stride,
                transposed,
                line * 4,
                queries + 2 * inner * 4,
                stride,
                width,
                width // LANES,
                length,
                0,
                out + token * inner * 4,
                inner * 4,
                scores,
                line * 4,
            )


@njit
def _linear(
    table: Any,
    me: int,
    members: int,
    weight: Any,
    bias: int,
    x: int,
    rows: int,
    width: int,
    out: int,
    out_width: int,
    ending: int,
    scratch: int,
) -> None:
    product(
        table,
        me,
        members,
        weight,
        x,
        width * 4,
        rows,
        -1.0,
        out,
        out_width * 4,
        0,
        bias,
        ending,
        table[_ACTIVATION],
        scratch,
    )
    wait(table, members)


@njit
def _piece(
    table: Any,
    lines: Any,
    starts: Any,
    first_text: int,
    last_text: int,
    me: int,
    members: int,
    crew: int,
    thread: int,
) -> None:
    """Texts through all layers.

    Args:
        me, members: the thread's number among those that share the work.
        crew: whose buffers are used; thread: the thread's number among all.
    """
    width, wide = table[_WIDTH], table[_WIDE]
    eps = carray(pointer(table[_EPS]), (1,), np.float64)[0]
    rows = starts[last_text] - starts[first_text]
    x = table[_STREAM] + starts[first_text] * width * 4
    projected = table[_PROJECTED] + crew * table[_PROJECTED_ROOM]
    mixed = table[_MIXED] + crew * table[_MIXED_ROOM]
    between = table[_BETWEEN] + crew * table[_BETWEEN_ROOM]
    scratch = table[_SCRATCH] + crew * table[_SCRATCH_ROOM]
    for number in range(table[_LAYERS]):
        layer = lines[number * _LINE : (number + 1) * _LINE]
        only_first = table[_FIRSTS] != 0 and number == table[_LAYERS] - 1
        _linear(
            table,
            me,
            members,
            layer[_QKV:_OUT],
            layer[_QKV_BIAS],
            x,
            rows,
            width,
            projected,
            3 * width,
            STORE,
            scratch,
        )
        _attention(table, projected, mixed, starts, first_text, last_text, only_first, me, members, thread)
        wait(table, members)
        if only_first:
            _gather(table, x, starts, first_text, last_text, me, members)
            rows = last_text - first_text
            x = table[_FIRSTS] + first_text * width * 4
            wait(table, members)
        _linear(
            table, me, members, layer[_OUT:_UP], layer[_OUT_BIAS], mixed, rows, width, x, width, ADD, scratch
        )
        _layer_norms(x, rows, width, layer[_NORM], layer[_NORM_BIAS], eps, me, members)
        wait(table, members)
        _linear(
            table,
            me,
            members,
            layer[_UP:_DOWN],
            layer[_UP_BIAS],
            x,
            rows,
            width,
            between,
            wide,
            ACTIVATE,
            scratch,
        )
        _linear(
            table,
            me,
            members,
            layer[_DOWN:_QKV_BIAS],
            layer[_DOWN_BIAS],
            between,
            rows,
            wide,
            x,
            width,
            ADD,
            scratch,
        )
        _layer_norms(x, rows, width, layer[_LAST_NORM], layer[_LAST_NORM_BIAS], eps, me, members)
        wait(table, members)


@njit
def _gather(table: Any, x: int, starts: Any, first_text: int, last_text: int, me: int, members: int) -> None:
    """The first token of each text to its place among the firsts."""
    width = table[_WIDTH]
    begin, end = share(last_text - first_text, me, members)
    for number in range(begin, end):
        text = first_text + number
        source = floats(x + (starts[text] - starts[first_text]) * width * 4, width)
        place = floats(table[_FIRSTS] + text * width * 4, width)
        for i in range(width):
            place[i] = source[i]


@njit
def _encode(table: Any) -> None:
    me, members = member(table)
    lines = numbers(table[_LAYER_LINES], table[_LAYERS] * _LINE)
    count = table[_PIECE_COUNT]
    pieces = numbers(table[_PIECES], count + 1)
    starts = numbers(table[_STARTS], pieces[count] + 1)
    if table[_ALONE] != 0:
        while True:
            piece = draw(table[_NEXT])
            if piece >= count:
                break
            _piece(table, lines, starts, pieces[piece], pieces[piece + 1], 0, 1, me, me)
    else:
        for piece in range(count):
            _piece(table, lines, starts, pieces[piece], pieces[piece + 1], me, members, 0, me)


@cache
def _compiled() -> Any:
    """The layers as a C function; compiled once a machine, kept on disk."""
    version = version_of(fused_attention)

    def encode(address: Any) -> None:
        if version >= 0:
            _encode(carray(address, (_SIZE,), np.int64))

    return c_function(encode)


@dataclass(frozen=True, slots=True)
class FusedLinear:
    """A packed weight and its bias (out,)."""

    weight: Panels
    bias: Tensor

    def padded(self) -> Tensor:
        """The bias as compiled code reads it: whole panels."""
        return F.pad(self.bias.detach().float(), (0, -self.bias.shape[0] % LANES)).contiguous()


@dataclass(frozen=True, slots=True)
class FusedLayer:
    """A layer's weights: the scale of the scores is in the query; norms as (weight, bias)."""

    query_key_value: FusedLinear
    output: FusedLinear
    norm: tuple[Tensor, Tensor]
    up: FusedLinear
    down: FusedLinear
    last_norm: tuple[Tensor, Tensor]


def usable(width: int, head_width: int, wide: int) -> bool:
    """Whether this processor and these widths allow it."""
    return tiles.available() and width % LANES == 0 and head_width % LANES == 0 and wide % 2 == 0


class FusedEncoder:
    """All layers of an encoder."""

    def __init__(self, layers: list[FusedLayer], heads: int, activation: str, eps: float) -> None:
        self.layers = layers
        self.heads = heads
        self.width = layers[0].query_key_value.weight.inputs
        self.wide = layers[0].up.weight.outputs
        self.activation = ACTIVATIONS[activation]
        self.eps = np.array([eps])
        linears = [(layer.query_key_value, layer.output, layer.up, layer.down) for layer in layers]
        self.biases = [[linear.padded() for linear in line] for line in linears]
        self.lines = np.array(
            [
                [
                    *(number for linear in line for number in linear.weight.line()),
                    *(bias.data_ptr() for bias in biases),
                    *(part.data_ptr() for norm in (layer.norm, layer.last_norm) for part in norm),
                ]
                for layer, line, biases in zip(layers, linears, self.biases, strict=True)
            ],
            dtype=np.int64,
        )

    def __call__(self, x: Tensor, lengths: tuple[int, ...], *, firsts: bool = False) -> Tensor:
        """Run texts through all layers.

        Args:
            x: (total, width) float32, the embedded texts one behind the other; written over.
            lengths: of the texts.
            firsts: only each text's first token is asked for.

        Returns:
            (total, width), which is `x`; or (texts, width).
        """
        result = x.new_empty(len(lengths), self.width) if firsts else x
        starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        members = torch.get_num_threads()
        alone = len(lengths) >= 2 * members
        pieces = np.array(_pieces(lengths, CREW_TOKENS if alone else 1 << 62), dtype=np.int64)
        tokens = int(max(starts[pieces[1:]] - starts[pieces[:-1]]))
        crews, longest = members if alone else 1, max(lengths)
        rooms = {
            _PROJECTED: tokens * 3 * self.width * 4,
            _MIXED: tokens * self.width * 4,
            _BETWEEN: tokens * self.wide * 4,
            _SCRATCH: products.scratch_bytes(1 if alone else members, tokens, max(self.width, self.wide)),
        }
        counts = {
            _TRANSPOSED: -(-longest // LANES) * LANES * (self.width // self.heads) * 4,
            _SCORES: score_floats(longest, self.width // self.heads) * 4,
        }
        table, following = np.zeros(_SIZE, dtype=np.int64), np.zeros(1, dtype=np.int64)
        buffers = {field: torch.empty(crews * size, dtype=torch.uint8) for field, size in rooms.items()}
        buffers |= {field: torch.empty(members * size, dtype=torch.uint8) for field, size in counts.items()}
        for field, buffer in buffers.items():
            table[field] = buffer.data_ptr()
        table[_PROJECTED_ROOM], table[_MIXED_ROOM] = rooms[_PROJECTED], rooms[_MIXED]
        table[_BETWEEN_ROOM], table[_SCRATCH_ROOM] = rooms[_BETWEEN], rooms[_SCRATCH]
        table[_ACTIVATION], table[_HEADS], table[_HEAD_WIDTH] = (
            self.activation,
            self.heads,
            self.width // self.heads,
        )
        table[_WIDTH], table[_WIDE], table[_EPS] = self.width, self.wide, self.eps.ctypes.data
        table[_LAYERS], table[_LAYER_LINES] = len(self.layers), self.lines.ctypes.data
        table[_STREAM], table[_STARTS] = x.data_ptr(), starts.ctypes.data
        table[_PIECES], table[_PIECE_COUNT] = pieces.ctypes.data, len(pieces) - 1
        table[_NEXT], table[_ALONE], table[_LONGEST] = following.ctypes.data, alone, longest
        table[_FIRSTS] = result.data_ptr() if firsts else 0
        threads.run(_compiled().address, table)
        return result


def _pieces(lengths: tuple[int, ...], tokens: int) -> list[int]:
    """Where runs of whole texts begin, each of about so many tokens; at the end the number of texts."""
    begins, used = [0], 0
    for text, length in enumerate(lengths):
        if used and used + length > tokens:
            begins.append(text)
            used = 0
        used += length
    return [*begins, len(lengths)]
