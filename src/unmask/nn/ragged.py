"""Packed token streams: many sequences laid end to end in one dimension, with no padding between them.

Everything that works token by token (linear layers, norms, losses) runs on the stream `(total, …)`. Only
attention has to know where a sequence begins: it asks the `Layout` for the rectangular view and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from unmask.errors import UserError
from unmask.nn.ids import check_batch
from unmask.nn.transfer import to_device


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the sequences of a packed stream lie.

    Attributes:
        lengths: tokens of each sequence, at least 1 each; kept as Python integers so that asking for a shape
            never waits for an accelerator.
        device: where index tensors are made.
        rows: the number of each sequence in the whole batch, of which these may be a part: what is drawn for a
            sequence (dropout, samples) depends on it alone; None: 0, 1, …
    """

    lengths: tuple[int, ...]
    device: torch.device
    rows: tuple[int, ...] | None = None

    @staticmethod
    def of(
        lengths: Sequence[int] | Tensor,
        device: torch.device | str = "cpu",
        rows: Sequence[int] | None = None,
    ) -> Layout:
        """A layout from the lengths of its sequences.

        Raises:
            ValueError: no sequences, one without tokens, or another number of rows.
        """
        values = tuple(int(n) for n in (lengths.tolist() if isinstance(lengths, Tensor) else lengths))
        if not values:
            raise ValueError("a batch needs at least one sequence")
        if min(values) < 1:
            raise ValueError(f"sequence {values.index(min(values))} of the batch is empty")
        if rows is not None and len(rows) != len(values):
            raise ValueError(f"{len(values)} sequences and the numbers of {len(rows)}")
        return Layout(values, torch.device(device), None if rows is None else tuple(int(n) for n in rows))

    def part(self, first: int, last: int) -> Layout:
        """The layout of the sequences first … last - 1 alone."""
        if first == 0 and last == self.batch:
            return self
        if (first, last) not in self._parts:
            rows = range(self.batch) if self.rows is None else self.rows
            self._parts[first, last] = Layout(self.lengths[first:last], self.device, tuple(rows[first:last]))
        return self._parts[first, last]

    @cached_property
    def _parts(self) -> dict[tuple[int, int], Layout]:
        # Kept, so that every layer of a model shares the parts' index tensors.
        return {}

    @property
    def batch(self) -> int:
        return len(self.lengths)

    @cached_property
    def total(self) -> int:
        return sum(self.lengths)

    @cached_property
    def longest(self) -> int:
        return max(self.lengths)

    @cached_property
    def is_rectangular(self) -> bool:
        """All sequences are equally long: the stream is the rectangle, and no padding exists anywhere."""
        return self.total == self.batch * self.longest

    @cached_property
    def starts(self) -> Tensor:
        """(batch,) int64: where each sequence begins in the stream."""
        lengths = torch.tensor(self.lengths)
        return to_device(lengths.cumsum(0) - lengths, self.device)

    @cached_property
    def positions(self) -> Tensor:
        """(total,) int64: the place of each token within its own sequence, from 0."""
        lengths = torch.tensor(self.lengths)
        starts = lengths.cumsum(0) - lengths
        return to_device(torch.arange(self.total) - starts.repeat_interleave(lengths), self.device)

    @cached_property
    def row_places(self) -> Tensor:
        """(batch,) int64: a number for each sequence that it has in the whole batch, whatever lies beside it."""
        rows = torch.arange(self.batch) if self.rows is None else torch.tensor(self.rows)
        return to_device(rows << 32, self.device)

    @cached_property
    def places(self) -> Tensor:
        """(total,) int64: a number for each token that it has in the whole batch: its sequence's, its position."""
        lengths = to_device(torch.tensor(self.lengths), self.device)
        rows = self.row_places.repeat_interleave(lengths, output_size=self.total)
        return rows + self.positions

    def query_places(self, heads: int) -> Tensor:
        """(batch, heads, longest) int64: a number for each token and head of the rectangle, likewise."""
        if heads not in self._query_places:
            of_head = torch.arange(heads, device=self.device)[:, None] << 24
            positions = torch.arange(self.longest, device=self.device)
            self._query_places[heads] = self.row_places[:, None, None] + of_head + positions
        return self._query_places[heads]

    @cached_property
    def _query_places(self) -> dict[int, Tensor]:
        return {}

    @cached_property
    def cells(self) -> Tensor:
        """(total,) int64: the place of each token in the flattened (batch · longest) rectangle."""
        lengths = torch.tensor(self.lengths)
        rows = to_device(torch.arange(self.batch).repeat_interleave(lengths), self.device)
        return rows * self.longest + self.positions

    @cached_property
    def mask(self) -> Tensor | None:
        """(batch, longest) bool, true on tokens; None where every cell is a token."""
        if self.is_rectangular:
            return None
        lengths = torch.tensor(self.lengths)
        return to_device(torch.arange(self.longest) < lengths[:, None], self.device)

    @cached_property
    def attention_bias(self) -> Tensor | None:
        """(batch, 1, 1, longest) float32 to add to scores: -inf on padding, else 0; None if no padding."""
        if self.mask is None:
            return None
        bias = torch.zeros(self.mask.shape, device=self.device).masked_fill(~self.mask, float("-inf"))
        return bias[:, None, None, :]

    def pad(self, stream: Tensor) -> Tensor:
        """(total, …) → (batch, longest, …), zeros in the gaps. A view where nothing has to be padded."""
        if not self.is_rectangular:
            stream = _ToRectangle.apply(stream, self.cells, self.batch * self.longest)
        return stream.view(self.batch, self.longest, *stream.shape[1:])

    def unpad(self, rectangle: Tensor) -> Tensor:
        """(batch, longest, …) → (total, …). A view where nothing was padded and memory allows."""
        flat = rectangle.flatten(0, 1)
        return flat if self.is_rectangular else _ToStream.apply(flat, self.cells)


# The two moves are each other's transpose and each cell is written once, so each is the other's gradient.
# Autograd's own gradient of a gather would be an accumulating scatter, which is slower and, on some devices,
# adds in no fixed order.


def _scatter(stream: Tensor, cells: Tensor, size: int) -> Tensor:
    return stream.new_zeros(size, *stream.shape[1:]).index_copy_(0, cells, stream)


class _ToRectangle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, stream: Tensor, cells: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(cells)
        return _scatter(stream, cells, size)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (cells,) = ctx.saved_tensors
        return gradient.index_select(0, cells), None, None


class _ToStream(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, flat: Tensor, cells: Tensor) -> Tensor:
        ctx.save_for_backward(cells)
        ctx.size = flat.shape[0]
        return flat.index_select(0, cells)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (cells,) = ctx.saved_tensors
        return _scatter(gradient, cells, ctx.size), None


@dataclass(frozen=True, eq=False)
class PackedInput:
    """What a padded batch holds once its padding is gone.

    Attributes:
        ids: (total,) int64 token ids.
        layout: the sequences' lengths.
        columns: (total,) int64: the column each token had in the padded batch.
        cells: (total,) int64: row · width + column of each token, to put results back.
        shape: (batch, width) of the padded batch.
    """

    ids: Tensor
    layout: Layout
    columns: Tensor
    cells: Tensor
    shape: tuple[int, int]

    def without_gaps(self) -> PackedInput:
        """This input, checked: the tokens of each row stand in one run, as relative positions need them.

        Raises:
            UserError: a row whose mask has a gap.
        """
        first = self.columns.index_select(0, self.layout.starts)
        shift = self.columns - self.layout.positions
        if not torch.equal(
            shift, first.repeat_interleave(torch.tensor(self.layout.lengths).to(first.device))
        ):
            raise UserError(
                "attention_mask has a gap inside a row: pad on the left or the right only, the tokens in one run"
            )
        return self

    def spread(self, stream: Tensor) -> Tensor:
        """(total, …) → (batch, width, …), zeros where the batch was padded."""
        batch, width = self.shape
        return _ToRectangle.apply(stream, self.cells, batch * width).view(batch, width, *stream.shape[1:])


def remove_padding(input_ids: Tensor, attention_mask: Tensor | None) -> PackedInput:
    """Pack a padded batch, wherever its padding is.

    Args:
        input_ids: (batch, width) token ids, whole numbers of any type.
        attention_mask: (batch, width), nonzero on tokens; None: everything is a token.

    Raises:
        UserError: a wrong shape or type, or a row without any token.
    """
    check_batch("input_ids", input_ids)
    batch, width = input_ids.shape
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    if not isinstance(attention_mask, Tensor):
        raise UserError(
            f"attention_mask is a {type(attention_mask).__name__}: give a tensor, as input_ids is"
        )
    if attention_mask.shape != input_ids.shape:
        raise UserError(
            f"attention_mask has the shape {tuple(attention_mask.shape)}, input_ids {tuple(input_ids.shape)}: "
            "they must be the same"
        )
    seen = attention_mask != 0
    lengths = seen.sum(1).tolist()
    if 0 in lengths:
        raise UserError(f"attention_mask has no token in row {lengths.index(0)}: leave that text out")
    cells = seen.flatten().nonzero().squeeze(1)
    ids = input_ids.flatten().index_select(0, cells).long()
    return PackedInput(ids, Layout.of(lengths, input_ids.device), cells % width, cells, (batch, width))
