"""T5's decoder a few tokens at a time, over caches that are allocated once.

Each row sits in a *slot*. The slots of rows that share a source are neighbours, a *group*: cross-attention's keys
and values exist once a group. Rows that end or that a beam search reorders move between slots as little as
possible: a row that lives on stays where it is, and only what must be is copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unmask.nn.ragged import Layout
from unmask.t5.engine import engine_of

if TYPE_CHECKING:
    from unmask.t5.model import T5ForConditionalGeneration

#: Keys are filled up to a multiple of this with keys that weigh nothing: MKL's products then add in the same
#: order whatever the number of keys, so that a result does not depend on what else is in the batch.
KEY_BLOCK = 16
#: Products with fewer multiplications than this go to a loop of PyTorch's own (`bmm_out_or_baddbmm_` in ATen's
#: LinearAlgebra.cpp), which adds in another order: narrow heads need more keys to stay above it.
_SMALLEST_PRODUCT = 400


class T5Decoder:
    """The state of decoding a batch: satisfies `unmask.generation.decoder.Decoder`.

    Every query attends in a product of its own, also where several are fed at once: their results are then
    those of feeding them one by one, bit by bit.
    """

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        source: Tensor,
        layout: Layout,
        capacity: int,
        *,
        copies: int = 1,
    ) -> None:
        """Args:
        source: (total, d_model) encoder output, packed as `layout` says.
        capacity: the most tokens that a row is fed.
        copies: rows decoded for each source, side by side.
        """
        self.engine = engine = engine_of(model)
        self.rows = self.groups = layout.batch
        self.copies = 1
        self.block = _key_block(engine.head_width)
        self.lengths = [0] * self.rows
        #: The slot of each row; None: row i is in slot i.
        self.slots: list[int] | None = None
        self.order: Tensor | None = None
        # One place beyond the capacity is where padding is written to.
        self.capacity = _filled_up(capacity + 1, self.block)
        self.cross_keys, self.cross_values, self.cross_bias = self._cross(source.float(), layout)
        shape = (len(engine.decoder_layers), 2, self.rows, engine.heads, self.capacity, engine.head_width)
        self.cache = source.new_zeros(shape, dtype=torch.float32)
        biases = engine.decoder_tables(1, self.capacity, self.capacity - 1)
        lines = {id(bias): _line(bias[:, 0]) for bias in biases}
        self.lines = [lines[id(bias)] for bias in biases]
        self._prepare()
        if copies > 1:
            self.select(torch.arange(self.rows).repeat_interleave(copies))

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
        for layer, place in zip(engine.decoder_layers, both, strict=True):
            rectangle = source.new_zeros(groups * keys, 2 * engine.heads * engine.head_width)
            rectangle.index_copy_(0, cells, layer.cross_key_value(source))
            place.copy_(rectangle.view(groups, keys, 2, engine.heads, -1).permute(2, 0, 3, 1, 4))
        bias = source.new_full((groups * keys,), float("-inf")).index_fill_(0, cells, 0.0)
        return both[:, 0], both[:, 1], bias.view(groups, 1, keys).repeat(1, engine.heads, 1)

    def _prepare(self) -> None:
        """Views and copies that depend on the number of slots alone."""
        groups, heads, used = self.groups, self.engine.heads, self.groups * self.copies
        self.used = used
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

    def step(self, ids: Tensor) -> Tensor:
        """Feed one token to each row, (rows,) → the next logits, (rows, vocab_size) float32."""
        return self._logits(self._feed(ids[:, None], None))

    def advance(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Feed several tokens to each row.

        Args:
            ids: (rows, n) int64.
            lengths: (rows,) int64, how many of the n tokens each row has, at least 1; None: all of them.

        Returns:
            (rows, n, vocab_size) float32: the logits behind each token; behind a row's length they mean nothing.
        """
        hidden = self._feed(ids, None if lengths is None else lengths.tolist())
        return self._logits(hidden).unflatten(0, (self.rows, -1))

    def rewind(self, lengths: Tensor) -> None:
        """Keep the first `lengths` (rows,) tokens of each row's cache; rows may differ."""
        self.lengths = lengths.tolist()

    def _logits(self, hidden: Tensor) -> Tensor:
        """(slots · n, d_model) → (rows · n, vocab_size), in the rows' order."""
        if self.order is not None:
            hidden = hidden.view(self.used, -1).index_select(0, self.order).view(-1, hidden.shape[1])
        return self.engine.output(self.engine.normalise(hidden))

    def _feed(self, ids: Tensor, lengths: list[int] | None) -> Tensor:
        """Run the layers over (rows, n) tokens → (slots · n, d_model)."""
        engine, n = self.engine, ids.shape[1]
        if self.order is not None:
            ids = ids.new_zeros(self.used, n).index_copy_(0, self.order, ids)
        write, biases = self._places(n, lengths)
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
        groups, copies, heads = self.groups, self.copies, self.engine.heads
        mixed = []
        for query in queries.view(groups, copies, n, heads, -1).unbind(2):
            query = query.transpose(1, 2).reshape(groups * heads, copies, -1)
            scores = torch.baddbmm(self._cross_bias, query, keys)
            out = torch.bmm(torch.softmax(scores, -1), values)
            mixed.append(out.view(groups, heads, copies, -1).transpose(1, 2).reshape(self.used, -1))
        return mixed[0] if n == 1 else torch.stack(mixed, 1).flatten(0, 1)

    def _places(self, n: int, lengths: list[int] | None) -> tuple[_Write, list[list[Tensor]]]:
        """How to write n keys and values of each slot, and the bias of each layer and query."""
        first = self.lengths[0]
        even = lengths is None and all(length == first for length in self.lengths)
        fed = [n] * self.rows if lengths is None else lengths
        last = max(length + more for length, more in zip(self.lengths, fed, strict=True)) - 1
        self._see(last)
        if even:
            starts = [self.capacity - 1 - first - i for i in range(n)]
            made = {
                id(line): [line[:, :, start : start + self._seen] for start in starts] for line in self._lines
            }
            write = _even_write(self.used, first, n)
        else:
            places = self._uneven_places(n, fed)
            made = {id(line): self._uneven_biases(line, places) for line in self._lines}
            write = _uneven_write(places)
        self.lengths = [length + more for length, more in zip(self.lengths, fed, strict=True)]
        return write, [made[id(line)] for line in self._lines]

    def _uneven_places(self, n: int, fed: list[int]) -> Tensor:
        """(slots, n) int64: where in its cache each token goes; what is padding goes to the last place."""
        places = torch.full((self.used, n), self.capacity - 1)
        slots = range(self.rows) if self.slots is None else self.slots
        for slot, length, more in zip(slots, self.lengths, fed, strict=True):
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

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order: (kept,) int64, repeats allowed."""
        chosen = rows.tolist()
        if chosen == list(range(self.rows)):
            return
        slots = list(range(self.rows)) if self.slots is None else self.slots
        old = [slots[row] for row in chosen]
        reach = max(self.lengths)
        self.lengths = [self.lengths[row] for row in chosen]
        plan = _rearrange(old, self.copies)
        if plan.copies > self.copies:
            self._widen(plan.copies, reach)
        for source, target in plan.slot_moves:
            self.cache[:, :, target, :, :reach].copy_(self.cache[:, :, source, :, :reach])
        for source, target in plan.group_moves:
            self.cross_keys[:, target].copy_(self.cross_keys[:, source])
            self.cross_values[:, target].copy_(self.cross_values[:, source])
            self.cross_bias[target].copy_(self.cross_bias[source])
        self.rows, self.groups, self.copies = len(chosen), plan.groups, plan.copies
        in_order = plan.slots == list(range(plan.groups * plan.copies))
        self.slots = None if in_order else plan.slots
        self.order = None if in_order else torch.tensor(plan.slots, device=self.cache.device)
        self._prepare()

    def _widen(self, copies: int, reach: int) -> None:
        """Room for more rows of each source."""
        layers, kinds, _, *rest = self.cache.shape
        wide = self.cache.new_zeros(layers, kinds, self.groups, copies, *rest)
        before = self.cache[:, :, : self.groups * self.copies].unflatten(2, (self.groups, self.copies))
        wide[:, :, :, : self.copies, :, :reach] = before[:, :, :, :, :, :reach]
        self.cache = wide.flatten(2, 3)


@dataclass(frozen=True)
class _Rearrangement:
    """What `select` does: slots of the rows, and which slots and groups are copied where, in any order."""

    slots: list[int]
    groups: int
    copies: int
    slot_moves: list[tuple[int, int]]
    group_moves: list[tuple[int, int]]


def _rearrange(old: list[int], copies: int) -> _Rearrangement:
    """Give each row a slot near its old one.

    A row stays where it is; repeats of it take free slots of its group; groups beyond the number that is left
    move into the places of groups that ended. No target of a move is a source of another.

    Args:
        old: the slot that each row comes from, repeats allowed.
        copies: slots of each group until now; more are made where one group has more rows.
    """
    members: dict[int, list[int]] = {}
    for slot in old:
        members.setdefault(slot // copies, []).append(slot % copies)
    wider = max(copies, max(len(offsets) for offsets in members.values()))
    groups = len(members)
    empty = [group for group in range(groups) if group not in members]
    place = {group: group if group < groups else empty.pop() for group in members}
    free = {group: [o for o in range(wider) if o not in offsets] for group, offsets in members.items()}
    taken: set[int] = set()
    slots, moves = [], []
    for slot in old:
        group, offset = divmod(slot, copies)
        target = free[group].pop(0) if slot in taken else offset
        taken.add(slot)
        slots.append(place[group] * wider + target)
        moves.append((group * wider + offset, slots[-1]))
    return _Rearrangement(
        slots,
        groups,
        wider,
        [(source, target) for source, target in moves if source != target],
        [(source, target) for source, target in place.items() if source != target],
    )


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
