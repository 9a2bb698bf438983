"""T5's decoder layers in PyTorch's operations, over caches that are allocated once: any device, any processor.

Where the processor has what it takes, `unmask.t5.fused` does the same in one compiled function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unmask.nn.ragged import Layout
from unmask.t5.slots import Slots, put_behind

if TYPE_CHECKING:
    from unmask.t5.engine import T5Engine

#: Keys are filled up to a multiple of this with keys that weigh nothing: MKL's products then add in the same
#: order whatever the number of keys, so that a result does not depend on what else is in the batch.
KEY_BLOCK = 16
#: Products with fewer multiplications than this go to a loop of PyTorch's own (`bmm_out_or_baddbmm_` in ATen's
#: LinearAlgebra.cpp), which adds in another order: narrow heads need more keys to stay above it.
_SMALLEST_PRODUCT = 400


class TorchLayers:
    """A decoder's layers with the caches of a batch: satisfies `unmask.t5.decoding.Layers`.

    Every query attends in a product of its own, also where several are fed at once: their results are then
    those of feeding them one by one, bit by bit.
    """

    def __init__(self, engine: T5Engine, source: Tensor, layout: Layout, capacity: int) -> None:
        self.engine = engine
        self.block = _key_block(engine.head_width)
        # One place beyond the capacity is where padding is written to.
        self.capacity = _filled_up(capacity + 1, self.block)
        self.cross_keys, self.cross_values, self.cross_bias = self._cross(source.float(), layout)
        shape = (
            len(engine.decoder_layers),
            2,
            layout.batch,
            engine.heads,
            self.capacity,
            engine.head_width,
        )
        self.cache = source.new_zeros(shape, dtype=torch.float32)
        self._add_lines()

    def _add_lines(self) -> None:
        """Each layer's position biases, up to the capacity."""
        biases = list(self.engine.decoder_tables(1, self.capacity, self.capacity - 1))
        lines = {id(bias): _line(bias[:, 0]) for bias in biases}
        self.lines = [lines[id(bias)] for bias in biases]

    def _cross(self, source: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """Cross-attention's keys and values, (layers, groups, heads, keys, width), and what hides padding."""
        engine, groups = self.engine, layout.batch
        keys = _filled_up(layout.longest, self.block)
        cells = (
            layout.positions
            + torch.arange(groups, device=layout.device).repeat_interleave(
                torch.tensor(layout.lengths, device=layout.device)
            )
            * keys
        )
        shape = (len(engine.decoder_layers), 2, groups, engine.heads, keys, engine.head_width)
        both = source.new_zeros(shape)
        for cross_key_value, place in zip(engine.cross_key_values, both, strict=True):
            rectangle = source.new_zeros(groups * keys, 2 * engine.heads * engine.head_width)
            rectangle.index_copy_(0, cells, cross_key_value(source))
            place.copy_(rectangle.view(groups, keys, 2, engine.heads, -1).permute(2, 0, 3, 1, 4))
        bias = source.new_full((groups * keys,), float("-inf")).index_fill_(0, cells, 0.0)
        return both[:, 0], both[:, 1], bias.view(groups, 1, keys).repeat(1, engine.heads, 1)

    def settle(self, slots: Slots) -> None:
        """Views and copies that depend on the number of slots alone."""
        groups, heads, used = slots.groups, self.engine.heads, slots.used
        self.slots, self.used = slots, used
        self.order = None if slots.slots is None else torch.tensor(slots.slots, device=self.cache.device)
        self._seen = 0
        made: dict[int, Tensor] = {}
        for line in self.lines:
            if id(line) not in made:
                made[id(line)] = line.repeat(used, 1)[:, None]
        self._lines = [made[id(line)] for line in self.lines]
        flat = groups * heads
        keys = self.cross_keys[:, :groups].flatten(1, 2).transpose(2, 3)
        self._cross_views = list(
            zip(keys.unbind(), self.cross_values[:, :groups].flatten(1, 2).unbind(), strict=True)
        )
        self._cross_bias = self.cross_bias[:groups].view(flat, 1, -1)

    def _see(self, last: int) -> None:
        """Views of the self-attention cache that reach at least to place `last`."""
        seen = _filled_up(last + 1, self.block)
        if seen != self._seen:
            self._seen = seen
            both = self.cache[:, :, : self.used].flatten(2, 3)[:, :, :, :seen]
            keys, values = both[:, 0].transpose(2, 3).unbind(), both[:, 1].unbind()
            self._views = list(zip(keys, values, strict=True))

    def feed(self, ids: Tensor, fed: list[int] | None, slots: Slots) -> Tensor:
        """Run (rows, n) tokens through all layers → logits (rows, n, vocab_size).

        Args:
            fed: how many of the n tokens each row has; None: all.
        """
        self.slots = slots
        return self._logits(self._run(ids, fed)).unflatten(0, (slots.rows, -1))

    def move(self, slot_moves: list[tuple[int, int]], group_moves: list[tuple[int, int]], reach: int) -> None:
        """Copy the first `reach` tokens of slots, and the sources of groups: (from, to)."""
        for source, target in slot_moves:
            self.cache[:, :, target, :, :reach].copy_(self.cache[:, :, source, :, :reach])
        for source, target in group_moves:
            self.cross_keys[:, target].copy_(self.cross_keys[:, source])
            self.cross_values[:, target].copy_(self.cross_values[:, source])
            self.cross_bias[target].copy_(self.cross_bias[source])

    def widen(self, groups: int, before: int, copies: int) -> None:
        """Room for `copies` slots of each group, where there were `before`."""
        layers, kinds, _, *rest = self.cache.shape
        wide = self.cache.new_zeros(layers, kinds, groups, copies, *rest)
        wide[:, :, :, :before] = self.cache[:, :, : groups * before].unflatten(2, (groups, before))
        self.cache = wide.flatten(2, 3)

    def join(self, other: TorchLayers, groups: int, coming: int) -> None:
        """Put the first `coming` sources of other layers, one slot each, behind the first `groups` of these."""
        self.cache = put_behind(self.cache, other.cache, 2, groups, coming)
        self.cross_keys = put_behind(self.cross_keys, other.cross_keys, 1, groups, coming)
        self.cross_values = put_behind(self.cross_values, other.cross_values, 1, groups, coming)
        self.cross_bias = put_behind(self.cross_bias, other.cross_bias, 0, groups, coming, float("-inf"))
        if self.cache.shape[-2] > self.capacity:
            self.capacity = self.cache.shape[-2]
            self._add_lines()

    def _logits(self, hidden: Tensor) -> Tensor:
        """(slots · n, d_model) → (rows · n, vocab_size), in the rows' order."""
        if self.order is not None:
            hidden = hidden.view(self.used, -1).index_select(0, self.order).view(-1, hidden.shape[1])
        return self.engine.output(self.engine.normalise(hidden))

    def _run(self, ids: Tensor, fed: list[int] | None) -> Tensor:
        """Run the layers over (rows, n) tokens → (slots · n, d_model)."""
        engine, n = self.engine, ids.shape[1]
        if self.order is not None:
            ids = ids.new_zeros(self.used, n).index_copy_(0, self.order, ids)
        write, biases = self._places(n, fed)
        x = engine.embed(ids.flatten())
        normalise = engine.normalise
        parts = (self.used, n, 3, engine.heads, engine.head_width)
        for index, layer in enumerate(engine.decoder_layers):
            query_key_value = layer.query_key_value(normalise(x)).view(parts)
            write(self.cache[index], query_key_value[:, :, 1:])
            x = layer.output.add(self._attend_self(query_key_value[:, :, 0], index, biases[index]), x)
            query = layer.cross_query(normalise(x))
            x = layer.cross_output.add(self._attend_source(query, n, index), x)
            x = layer.feed_forward.add(normalise(x), x)
        return x

    def _attend_self(self, queries: Tensor, layer: int, biases: list[Tensor]) -> Tensor:
        """(slots, n, heads, width) and n biases (slots · heads, 1, keys) → (slots · n, heads · width)."""
        keys, values = self._views[layer]
        used, _, heads, width = queries.shape
        mixed = []
        for query, bias in zip(queries.unbind(1), biases, strict=True):
            scores = torch.baddbmm(bias, query.reshape(used * heads, 1, width), keys)
            mixed.append(torch.bmm(torch.softmax(scores, -1), values).view(used, heads * width))
        return mixed[0] if len(mixed) == 1 else torch.stack(mixed, 1).flatten(0, 1)

    def _attend_source(self, queries: Tensor, n: int, layer: int) -> Tensor:
        """(slots · n, heads · width) → the same; the queries of one group attend together."""
        keys, values = self._cross_views[layer]
        groups, copies, heads = self.slots.groups, self.slots.copies, self.engine.heads
        mixed = []
        for query in queries.view(groups, copies, n, heads, -1).unbind(2):
            query = query.transpose(1, 2).reshape(groups * heads, copies, -1)
            scores = torch.baddbmm(self._cross_bias, query, keys)
            out = torch.bmm(torch.softmax(scores, -1), values)
            mixed.append(out.view(groups, heads, copies, -1).transpose(1, 2).reshape(self.used, -1))
        return mixed[0] if n == 1 else torch.stack(mixed, 1).flatten(0, 1)

    def _places(self, n: int, fed: list[int] | None) -> tuple[_Write, list[list[Tensor]]]:
        """How to write n keys and values of each slot, and the bias of each layer and query."""
        lengths_before = self.slots.lengths
        first = lengths_before[0]
        even = fed is None and all(length == first for length in lengths_before)
        counts = [n] * self.slots.rows if fed is None else fed
        last = max(length + more for length, more in zip(lengths_before, counts, strict=True)) - 1
        self._see(last)
        if even:
            starts = [self.capacity - 1 - first - i for i in range(n)]
            made = {
                id(line): [line[:, :, start : start + self._seen] for start in starts] for line in self._lines
            }
            write = _even_write(self.used, first, n)
        else:
            places = self._uneven_places(n, counts)
            made = {id(line): self._uneven_biases(line, places) for line in self._lines}
            write = _uneven_write(places)
        return write, [made[id(line)] for line in self._lines]

    def _uneven_places(self, n: int, fed: list[int]) -> Tensor:
        """(slots, n) int64: where in its cache each token goes; what is padding goes to the last place."""
        places = torch.full((self.used, n), self.capacity - 1)
        slots = self.slots.slots or range(self.slots.rows)
        for slot, length, more in zip(slots, self.slots.lengths, fed, strict=True):
            places[slot, :more] = torch.arange(length, length + more)
        return places.to(self.cache.device)

    def _uneven_biases(self, line: Tensor, places: Tensor) -> list[Tensor]:
        """For each of the n queries (slots · heads, 1, keys), which place it may be."""
        lines = line.view(self.used, -1, line.shape[2])
        window = torch.arange(self._seen, device=places.device)
        biases = []
        for place in places.unbind(1):
            index = (window - place[:, None] + self.capacity - 1)[:, None].expand(-1, lines.shape[1], -1)
            biases.append(lines.gather(2, index).flatten(0, 1)[:, None])
        return biases


_Write = Callable[[Tensor, Tensor], None]


def _even_write(used: int, first: int, n: int) -> _Write:
    """For rows that are equally far: keys and values (slots, n, 2, heads, width) into one layer's cache."""

    def write(cache: Tensor, fresh: Tensor) -> None:
        cache[:, :used, :, first : first + n].copy_(fresh.permute(2, 0, 3, 1, 4))

    return write


def _uneven_write(places: Tensor) -> _Write:
    """For rows that are not: each token goes to its own place (slots, n)."""
    slots = torch.arange(places.shape[0], device=places.device)[:, None]

    def write(cache: Tensor, fresh: Tensor) -> None:
        for kind, values in zip(cache, fresh.unbind(2), strict=True):
            kind[slots, :, places] = values

    return write


def _key_block(head_width: int) -> int:
    return KEY_BLOCK * -(-_SMALLEST_PRODUCT // (KEY_BLOCK * head_width))


def _filled_up(keys: int, block: int) -> int:
    return -(-keys // block) * block


def _line(bias: Tensor) -> Tensor:
    """The last query's bias (heads, n) → (heads, 2n): a window that ends later belongs to an earlier query.

    What it then sees beyond itself is -inf.
    """
    return torch.cat((bias, torch.full_like(bias, float("-inf"))), 1)
