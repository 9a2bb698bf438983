"""T5's decoder a few tokens at a time: rows of a batch come, end and change places over caches that stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from unmask.errors import UserError
from unmask.nn.ragged import Layout
from unmask.t5.slots import Slots, rearrange

if TYPE_CHECKING:
    from unmask.t5.engine import T5Engine


class Layers(Protocol):
    """A decoder's layers with the caches of a batch, by slots."""

    def settle(self, slots: Slots) -> None:
        """The slots changed: called before the first `feed` and after every `move` and `widen`."""

    def feed(self, ids: Tensor, fed: list[int] | None, slots: Slots) -> Tensor:
        """Run (rows, n) tokens through all layers → logits (rows, n, vocab_size) float32.

        Args:
            fed: how many of the n tokens each row has; None: all.
        """

    def move(self, slot_moves: list[tuple[int, int]], group_moves: list[tuple[int, int]], reach: int) -> None:
        """Copy the first `reach` tokens of slots, and the sources of groups: (from, to)."""

    def widen(self, groups: int, before: int, copies: int) -> None:
        """Room for `copies` slots of each group, where there were `before`."""

    def join(self, other: Any, groups: int, coming: int) -> None:
        """Put the first `coming` sources of other layers, one slot each, behind the first `groups` of these."""


class T5Decoder:
    """The state of decoding a batch: satisfies `unmask.generation.decoder.Decoder`."""

    def __init__(
        self,
        engine: T5Engine,
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

        Raises:
            UserError: there is no memory for so much.
        """
        self.slots = Slots(layout.batch, layout.batch, 1, [0] * layout.batch)
        self.engine = engine
        self.layers = self._layers(source.float(), layout, capacity, copies)
        self.layers.settle(self.slots)
        if copies > 1:
            self.select(torch.arange(layout.batch).repeat_interleave(copies))

    def _layers(self, source: Tensor, layout: Layout, capacity: int, copies: int) -> Layers:
        try:
            return self.engine.decoder(source, layout, capacity)
        except RuntimeError as error:
            if "allocate memory" not in str(error):
                raise
            raise UserError(
                f"no memory for the keys and values of {layout.batch * copies} results of {capacity} tokens: "
                "lower max_new_tokens, or decode fewer texts at once"
            ) from None

    @property
    def rows(self) -> int:
        return self.slots.rows

    def step(self, ids: Tensor) -> Tensor:
        """Feed one token to each row, (rows,) → the next logits, (rows, vocab_size) float32.

        They may be overwritten by the next call.
        """
        return self._feed(ids[:, None], None)[:, 0]

    def advance(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Feed several tokens to each row.

        Args:
            ids: (rows, n) int64.
            lengths: (rows,) int64, how many of the n tokens each row has, at least 1; None: all of them.

        Returns:
            (rows, n, vocab_size) float32: the logits behind each token; behind a row's length they mean nothing.
            They may be overwritten by the next call.
        """
        return self._feed(ids, None if lengths is None else lengths.tolist())

    def _feed(self, ids: Tensor, fed: list[int] | None) -> Tensor:
        logits = self.layers.feed(ids, fed, self.slots)
        more = [ids.shape[1]] * self.rows if fed is None else fed
        self.slots.lengths = [length + count for length, count in zip(self.slots.lengths, more, strict=True)]
        return logits

    def rewind(self, lengths: Tensor) -> None:
        """Keep the first `lengths` (rows,) tokens of each row's cache; rows may differ."""
        self.slots.lengths = lengths.tolist()

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order: (kept,) int64, repeats allowed."""
        chosen, slots = rows.tolist(), self.slots
        if chosen == list(range(slots.rows)):
            return
        places = slots.slots or range(slots.rows)
        plan = rearrange([places[row] for row in chosen], slots.copies)
        if plan.copies > slots.copies:
            self.layers.widen(slots.groups, slots.copies, plan.copies)
        self.layers.move(plan.slot_moves, plan.group_moves, max(slots.lengths))
        in_order = plan.slots == list(range(plan.groups * plan.copies))
        self.slots = Slots(
            len(chosen),
            plan.groups,
            plan.copies,
            [slots.lengths[row] for row in chosen],
            None if in_order else plan.slots,
        )
        self.layers.settle(self.slots)

    def join(self, other: T5Decoder) -> None:
        """Take over the rows of another decoder of the same engine, behind these rows; the other is used up.

        Raises:
            ValueError: either has several rows of one source.
        """
        mine, theirs = self.slots, other.slots
        if mine.copies != 1 or theirs.copies != 1:
            raise ValueError("only decoders with one row for each source can be joined")
        self.layers.join(other.layers, mine.groups, theirs.groups)
        places = [*(mine.slots or range(mine.rows))]
        places += [mine.groups + slot for slot in theirs.slots or range(theirs.rows)]
        groups = mine.groups + theirs.groups
        in_order = places == list(range(groups))
        self.slots = Slots(
            len(places), groups, 1, [*mine.lengths, *theirs.lengths], None if in_order else places
        )
        self.layers.settle(self.slots)
