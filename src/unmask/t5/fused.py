"""T5's decoder on a CPU as one compiled function: all layers of a step, attention and the output matrix.

A step of a small model is a hundred small operations of some microseconds each; called one by one from Python,
calling takes longer than computing. Here every thread runs through the whole step and waits for the others only
where it reads what they wrote.

The bits of a token's logits depend on that token, what was fed before it and its source alone: not on the other
rows, nor on whether tokens are fed one by one or several at once (`unmask.nn.tiles`; attention adds keys in their
order).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import carray, njit
from torch import Tensor

from unmask.nn import fused_attention, products, threads, tiles
from unmask.nn.compiled import c_function, version_of
from unmask.nn.fused_attention import attend
from unmask.nn.products import ACTIVATE, ADD, GATE, STORE, floats, numbers, product
from unmask.nn.ragged import Layout
from unmask.nn.threads import HEADER, member, pointer, share, wait
from unmask.nn.tiles import FIELDS, FLOAT16, FLOAT32, LANES, ROWS, Panels, store_half
from unmask.nn.vectors import ACTIVATIONS
from unmask.t5.slots import Slots, put_behind

if TYPE_CHECKING:
    from unmask.t5.engine import T5Engine

#: Keys are stored in blocks of so many.
KEY_BLOCK = LANES


@dataclass(frozen=True, slots=True)
class FusedLayer:
    """A decoder layer's weights; `up` holds gate and up interleaved where there is a gate."""

    query_key_value: Panels
    output: Panels
    cross_query: Panels
    cross_output: Panels
    up: Panels
    down: Panels

    def lines(self) -> list[int]:
        parts = (
            self.query_key_value,
            self.output,
            self.cross_query,
            self.cross_output,
            self.up,
            self.down,
        )
        return [number for part in parts for number in part.line()]


@dataclass(frozen=True, slots=True)
class FusedWeights:
    """A decoder's weights.

    Attributes:
        layers: from first to last.
        output: the matrix of the logits.
        gated: whether the feed-forward has a gate.
        activation: of the feed-forward, a key of `ACTIVATIONS`.
        floor: width · eps of the norms.
        inner: width of the feed-forward.
    """

    layers: list[FusedLayer]
    output: Panels
    gated: bool
    activation: str
    floor: float
    inner: int


def usable(widths: Sequence[int], activation: str) -> bool:
    """Whether this processor and these inputs' widths allow it."""
    return tiles.available() and all(width % 2 == 0 for width in widths) and activation in ACTIVATIONS


# The table that compiled code reads: numbers and addresses.
(
    _TOKENS,
    _SLOTS,
    _GROUPS,
    _COPIES,
    _HEADS,
    _WIDTH,
    _PADDED_WIDTH,
    _MODEL,
    _INNER,
    _LAYERS,
    _CAPACITY,
    _SOURCE_KEYS,
    _ENDING,
    _ACTIVATION,
    _FLOOR,
    _STREAM,
    _QUERY_KEY_VALUE,
    _MIXED,
    _FEED_FORWARD,
    _SCRATCH,
    _SCORES,
    _FIRSTS,
    _TOKEN_PLACES,
    _SOURCE_LENGTHS,
    _LAYER_LINES,
    _OUTPUT_LINE,
    _OUTPUT_PLACES,
    _LOGITS,
    _VOCABULARY,
    _CACHE_KIND,
    _SIZE,
) = range(HEADER, HEADER + 31)

# A layer's line: its weights, then caches and the position bias.
_QKV, _OUT, _CROSS_QUERY, _CROSS_OUT, _UP, _DOWN = (FIELDS * part for part in range(6))
_KEYS, _VALUES, _SOURCE_KEYS_AT, _SOURCE_VALUES_AT, _BIAS, _LINE = range(6 * FIELDS, 6 * FIELDS + 6)


@njit
def _write(kind: int, values: int, count: int, to: int, stride: int) -> None:
    """float32 values into a cache, each `stride` places behind the one before."""
    fresh = floats(values, count)
    if kind == FLOAT16:
        for i in range(count):
            store_half(fresh[i], to + i * stride * 2)
    else:
        place = floats(to, (count - 1) * stride + 1)
        for i in range(count):
            place[i * stride] = fresh[i]


@njit
def _attend_self(table: Any, layer: Any, me: int, members: int) -> None:
    """Fresh keys and values go to the cache, then each token sees those up to its own place."""
    heads, width, inner, capacity = table[_HEADS], table[_WIDTH], table[_INNER], table[_CAPACITY]
    padded, kind = table[_PADDED_WIDTH], table[_CACHE_KIND]
    size = 2 if kind == FLOAT16 else 4
    firsts = numbers(table[_FIRSTS], table[_SLOTS] + 1)
    places = numbers(table[_TOKEN_PLACES], table[_TOKENS])
    stride = 3 * inner * 4
    longest = max(capacity, table[_SOURCE_KEYS])
    scores = table[_SCORES] + me * ROWS * (longest + padded) * 4
    begin, end = share(table[_SLOTS] * heads, me, members)
    for unit in range(begin, end):
        slot, head = unit // heads, unit % heads
        keys_at = layer[_KEYS] + unit * width * capacity * size
        values_at = layer[_VALUES] + unit * padded * capacity * size
        for token in range(firsts[slot], firsts[slot + 1]):
            place = places[token]
            fresh = table[_QUERY_KEY_VALUE] + token * stride + (inner + head * width) * 4
            _write(kind, fresh, width, keys_at + place * size, capacity)
            _write(kind, fresh + inner * 4, width, values_at + place * padded * size, 1)
        for token in range(firsts[slot], firsts[slot + 1]):
            attend(
                kind,
                1,
                table[_QUERY_KEY_VALUE] + token * stride + head * width * 4,
                stride,
                keys_at,
                capacity * size,
                values_at,
                padded * size,
                width,
                padded // LANES,
                places[token] + 1,
                layer[_BIAS] + (head * capacity + capacity - 1 - places[token]) * 4,
                table[_MIXED] + (token * inner + head * width) * 4,
                inner * 4,
                scores,
                longest * 4,
            )


@njit
def _attend_source(table: Any, layer: Any, me: int, members: int) -> None:
    """The tokens of one source together, head by head."""
    heads, width, inner, longest = table[_HEADS], table[_WIDTH], table[_INNER], table[_SOURCE_KEYS]
    padded, copies, kind = table[_PADDED_WIDTH], table[_COPIES], table[_CACHE_KIND]
    size = 2 if kind == FLOAT16 else 4
    firsts = numbers(table[_FIRSTS], table[_SLOTS] + 1)
    lengths = numbers(table[_SOURCE_LENGTHS], table[_GROUPS])
    line = max(table[_CAPACITY], longest)
    scores = table[_SCORES] + me * ROWS * (line + padded) * 4
    begin, end = share(table[_GROUPS] * heads, me, members)
    for unit in range(begin, end):
        group, head = unit // heads, unit % heads
        first, last = firsts[group * copies], firsts[(group + 1) * copies]
        for token in range(first, last, ROWS):
            attend(
                kind,
                min(ROWS, last - token),
                table[_QUERY_KEY_VALUE] + (token * inner + head * width) * 4,
                inner * 4,
                layer[_SOURCE_KEYS_AT] + unit * width * longest * size,
                longest * size,
                layer[_SOURCE_VALUES_AT] + unit * padded * longest * size,
                padded * size,
                width,
                padded // LANES,
                lengths[group],
                0,
                table[_MIXED] + (token * inner + head * width) * 4,
                inner * 4,
                scores,
                line * 4,
            )


@njit
def _multiply(
    table: Any,
    me: int,
    members: int,
    weight: Any,
    x: int,
    width: int,
    normalised: bool,
    out: int,
    out_width: int,
    ending: int,
) -> None:
    """A product over all tokens, and wait for its end."""
    floor = carray(pointer(table[_FLOOR]), (1,), np.float64)[0] if normalised else -1.0
    product(
        table,
        me,
        members,
        weight,
        x,
        width * 4,
        table[_TOKENS],
        floor,
        out,
        out_width * 4,
        0,
        0,
        ending,
        table[_ACTIVATION],
        table[_SCRATCH],
    )
    wait(table, members)


@njit
def _layer(table: Any, layer: Any, me: int, members: int) -> None:
    width, inner = table[_MODEL], table[_INNER]
    x, mixed, queries = table[_STREAM], table[_MIXED], table[_QUERY_KEY_VALUE]
    _multiply(table, me, members, layer[_QKV:_OUT], x, width, True, queries, 3 * inner, STORE)
    _attend_self(table, layer, me, members)
    wait(table, members)
    _multiply(table, me, members, layer[_OUT:_CROSS_QUERY], mixed, inner, False, x, width, ADD)
    _multiply(table, me, members, layer[_CROSS_QUERY:_CROSS_OUT], x, width, True, queries, inner, STORE)
    _attend_source(table, layer, me, members)
    wait(table, members)
    _multiply(table, me, members, layer[_CROSS_OUT:_UP], mixed, inner, False, x, width, ADD)
    between, wide = table[_FEED_FORWARD], layer[_UP + tiles.OUTPUTS]
    _multiply(table, me, members, layer[_UP:_DOWN], x, width, True, between, wide, table[_ENDING])
    _multiply(table, me, members, layer[_DOWN:_KEYS], between, wide, False, x, width, ADD)


@njit
def _logits(table: Any, me: int, members: int) -> None:
    """The output matrix."""
    product(
        table,
        me,
        members,
        numbers(table[_OUTPUT_LINE], FIELDS),
        table[_STREAM],
        table[_MODEL] * 4,
        table[_TOKENS],
        carray(pointer(table[_FLOOR]), (1,), np.float64)[0],
        table[_LOGITS],
        table[_VOCABULARY] * 4,
        table[_OUTPUT_PLACES],
        0,
        STORE,
        0,
        table[_SCRATCH],
    )


@njit
def _step(table: Any) -> None:
    me, members = member(table)
    lines = numbers(table[_LAYER_LINES], table[_LAYERS] * _LINE)
    for number in range(table[_LAYERS]):
        _layer(table, lines[number * _LINE : (number + 1) * _LINE], me, members)
    _logits(table, me, members)


@cache
def _compiled() -> Any:
    """The step as a C function; compiled once a machine, kept on disk."""
    version = version_of(fused_attention)

    def step(address: Any) -> None:
        if version >= 0:
            _step(carray(address, (_SIZE,), np.int64))

    return c_function(step)


class FusedLayers:
    """A decoder's layers with the caches of a batch: satisfies `unmask.t5.decoding.Layers`."""

    def __init__(
        self, engine: T5Engine, weights: FusedWeights, source: Tensor, layout: Layout, capacity: int
    ) -> None:
        self.engine = engine
        self.weights = weights
        self.capacity = _filled_up(capacity)
        self.padded_width = _filled_up(engine.head_width)
        self.function = _compiled().address
        # Keys and values are most of what a step reads once rows are many.
        self.type = torch.float32 if engine.precision == "float32" else torch.float16
        self._add_source(source, layout)
        shape = (len(weights.layers), layout.batch, engine.heads)
        self.keys = torch.zeros(*shape, engine.head_width, self.capacity, dtype=self.type)
        self.values = torch.zeros(*shape, self.capacity, self.padded_width, dtype=self.type)
        self._add_biases()
        self.table = np.zeros(_SIZE, dtype=np.int64)
        self.floor = np.array([weights.floor])
        self.output_line = np.array(weights.output.line(), dtype=np.int64)
        self._tokens = self._members = 0
        self._logits = torch.empty(0)

    def _add_biases(self) -> None:
        """Each layer's position biases, up to the capacity."""
        biases = list(self.engine.decoder_tables(1, self.capacity, self.capacity - 1))
        lines = {id(bias): bias[:, 0].detach().float().contiguous() for bias in biases}
        self.biases = [lines[id(bias)] for bias in biases]

    def _add_source(self, source: Tensor, layout: Layout) -> None:
        """Cross-attention's keys and values of every layer."""
        engine, groups, keys = self.engine, layout.batch, _filled_up(layout.longest)
        self.source_keys_number = keys
        self.source_lengths = np.array(layout.lengths, dtype=np.int64)
        owner = torch.arange(groups).repeat_interleave(torch.tensor(layout.lengths))
        shape = (len(self.weights.layers), groups, engine.heads)
        self.source_keys = torch.zeros(*shape, engine.head_width, keys, dtype=self.type)
        self.source_values = torch.zeros(*shape, keys, self.padded_width, dtype=self.type)
        for number, packed in enumerate(engine.cross_key_values):
            both = packed(source).view(-1, 2, engine.heads, engine.head_width)
            if self.type == torch.float16:
                bound = torch.finfo(torch.float16).max
                both = both.clamp_(-bound, bound).half()
            if layout.is_rectangular:
                key, value = both.view(groups, layout.longest, 2, engine.heads, -1).unbind(2)
                self.source_keys[number, ..., : layout.longest] = key.permute(0, 2, 3, 1)
                place = self.source_values[number, :, :, : layout.longest, : engine.head_width]
                place.copy_(value.transpose(1, 2))
            else:
                self.source_keys[number][owner, :, :, layout.positions] = both[:, 0]
                place = self.source_values[number][..., : engine.head_width]
                place[owner, :, layout.positions] = both[:, 1]

    def settle(self, slots: Slots) -> None:
        """The number of slots changed: tell compiled code where everything is."""
        engine, weights, table = self.engine, self.weights, self.table
        inner = engine.heads * engine.head_width
        self.lines = np.array([layer.lines() + [0] * (_LINE - _KEYS) for layer in weights.layers])
        for number, line in enumerate(self.lines):
            line[_KEYS] = self.keys[number].data_ptr()
            line[_VALUES] = self.values[number].data_ptr()
            line[_SOURCE_KEYS_AT] = self.source_keys[number].data_ptr()
            line[_SOURCE_VALUES_AT] = self.source_values[number].data_ptr()
            line[_BIAS] = self.biases[number].data_ptr()
        table[_SLOTS], table[_GROUPS], table[_COPIES] = slots.used, slots.groups, slots.copies
        table[_HEADS], table[_WIDTH], table[_PADDED_WIDTH] = (
            engine.heads,
            engine.head_width,
            self.padded_width,
        )
        table[_MODEL], table[_INNER], table[_LAYERS] = self._width, inner, len(weights.layers)
        table[_CAPACITY], table[_SOURCE_KEYS] = self.capacity, self.source_keys_number
        table[_ENDING] = GATE if weights.gated else ACTIVATE
        table[_ACTIVATION] = ACTIVATIONS[weights.activation]
        table[_FLOOR], table[_SOURCE_LENGTHS] = self.floor.ctypes.data, self.source_lengths.ctypes.data
        table[_LAYER_LINES], table[_OUTPUT_LINE] = self.lines.ctypes.data, self.output_line.ctypes.data
        table[_VOCABULARY] = weights.output.outputs
        table[_CACHE_KIND] = FLOAT32 if self.type == torch.float32 else FLOAT16

    @property
    def _width(self) -> int:
        return self.weights.output.inputs

    def feed(self, ids: Tensor, fed: list[int] | None, slots: Slots) -> Tensor:
        """Run (rows, n) tokens through all layers → logits (rows, n, vocab_size), valid until the next call.

        Args:
            fed: how many of the n tokens each row has; None: all.
        """
        rows, n = ids.shape
        tokens = _Tokens.of(n, fed, slots)
        flat = ids.flatten()
        stream = self.engine.embed(flat if tokens.order is None else flat[torch.from_numpy(tokens.order)])
        if self._logits.shape[0] < rows * n:
            self._logits = torch.empty(rows * n, self.weights.output.outputs)
        table, count = self.table, len(tokens.places)
        table[_TOKENS] = count
        self._make_room(count)
        table[_STREAM], table[_LOGITS] = stream.data_ptr(), self._logits.data_ptr()
        table[_FIRSTS], table[_TOKEN_PLACES] = tokens.firsts.ctypes.data, tokens.places.ctypes.data
        table[_OUTPUT_PLACES] = 0 if tokens.order is None else tokens.order.ctypes.data
        threads.run(self.function, table)
        return self._logits[: rows * n].view(rows, n, -1)

    def _make_room(self, tokens: int) -> None:
        """Buffers between the operations, for so many tokens and PyTorch's present threads."""
        members = torch.get_num_threads()
        if tokens <= self._tokens and members <= self._members:
            return
        self._tokens, self._members = max(tokens, self._tokens), max(members, self._members)
        weights, inner = self.weights, self.engine.heads * self.engine.head_width
        widest = max(self._width, inner, weights.inner)
        keys = max(self.capacity, self.source_keys_number) + self.padded_width
        sizes = {
            _QUERY_KEY_VALUE: self._tokens * 3 * inner * 4,
            _MIXED: self._tokens * inner * 4,
            _FEED_FORWARD: self._tokens * weights.inner * 4,
            _SCRATCH: products.scratch_bytes(self._members, self._tokens, widest),
            _SCORES: self._members * ROWS * keys * 4,
        }
        self._buffers = {field: torch.empty(size, dtype=torch.uint8) for field, size in sizes.items()}
        for field, buffer in self._buffers.items():
            self.table[field] = buffer.data_ptr()

    def move(self, slot_moves: list[tuple[int, int]], group_moves: list[tuple[int, int]], reach: int) -> None:
        """Copy the first `reach` tokens of slots, and the sources of groups: (from, to)."""
        for source, target in slot_moves:
            self.keys[:, target, ..., :reach] = self.keys[:, source, ..., :reach]
            self.values[:, target, :, :reach] = self.values[:, source, :, :reach]
        for source, target in group_moves:
            self.source_keys[:, target] = self.source_keys[:, source]
            self.source_values[:, target] = self.source_values[:, source]
            self.source_lengths[target] = self.source_lengths[source]

    def widen(self, groups: int, before: int, copies: int) -> None:
        """Room for `copies` slots of each group, where there were `before`."""
        self.keys = _widened(self.keys, groups, before, copies)
        self.values = _widened(self.values, groups, before, copies)

    def join(self, other: FusedLayers, groups: int, coming: int) -> None:
        """Put the first `coming` sources of other layers, one slot each, behind the first `groups` of these."""
        for name in ("keys", "values", "source_keys", "source_values"):
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, put_behind(mine, theirs, 1, groups, coming))
        lengths = np.zeros(self.source_keys.shape[1], dtype=np.int64)
        lengths[:groups] = self.source_lengths[:groups]
        lengths[groups : groups + coming] = other.source_lengths[:coming]
        self.source_lengths = lengths
        self.source_keys_number = self.source_keys.shape[-1]
        # Buffers for scores are as long as the longest row.
        self._tokens = self._members = 0
        if self.keys.shape[-1] > self.capacity:
            self.capacity = self.keys.shape[-1]
            self._add_biases()


@dataclass(frozen=True, slots=True)
class _Tokens:
    """The tokens fed in one call, in the order of their slots.

    Attributes:
        order: (tokens,) each one's number among the rows' tokens, row by row; None: they are in that order.
        firsts: (slots + 1,) the first token of each slot.
        places: (tokens,) each one's place in its slot's cache.
    """

    order: np.ndarray[Any, np.dtype[np.int64]] | None
    firsts: np.ndarray[Any, np.dtype[np.int64]]
    places: np.ndarray[Any, np.dtype[np.int64]]

    @staticmethod
    def of(n: int, fed: list[int] | None, slots: Slots) -> _Tokens:
        lengths = slots.lengths
        if slots.slots is None and fed is None:
            places = np.array(lengths, dtype=np.int64)
            if n > 1:
                places = (places[:, None] + np.arange(n)).ravel()
            return _Tokens(None, np.arange(slots.used + 1) * n, places)
        row_of = {slot: row for row, slot in enumerate(slots.slots or range(slots.rows))}
        order: list[int] = []
        taken: list[int] = []
        firsts = [0]
        for slot in range(slots.used):
            row = row_of.get(slot)
            if row is not None:
                count = n if fed is None else fed[row]
                order += range(row * n, row * n + count)
                taken += range(lengths[row], lengths[row] + count)
            firsts.append(len(order))
        return _Tokens(*(np.array(numbers, dtype=np.int64) for numbers in (order, firsts, taken)))


def _filled_up(keys: int) -> int:
    return -(-keys // KEY_BLOCK) * KEY_BLOCK


def _widened(cache: Tensor, groups: int, before: int, copies: int) -> Tensor:
    """(layers, groups · before, …) → (layers, groups · copies, …)."""
    layers, _, *rest = cache.shape
    wide = cache.new_zeros(layers, groups, copies, *rest)
    wide[:, :, :before] = cache[:, : groups * before].unflatten(1, (groups, before))
    return wide.flatten(1, 2)
