"""What a caller gives a model, padded or ragged, as a packed stream; and results put back in its shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from unmask.electra.config import ElectraConfig
from unmask.errors import UserError
from unmask.nn.ids import check_batch, check_range
from unmask.nn.ragged import Layout, PackedInput, remove_padding

#: (batch, width), padded on either side; or one list of ids a sequence.
Rows = Tensor | Sequence[Sequence[int]]


@dataclass(frozen=True, eq=False)
class Batch:
    """A packed batch that remembers the shape it came in.

    Attributes:
        packed: ids, layout and cells.
        types: (total,) int64 segment of each token; None: all of the first segment.
    """

    packed: PackedInput
    types: Tensor | None

    @staticmethod
    def of(
        config: ElectraConfig,
        input_ids: Rows,
        attention_mask: Tensor | None,
        token_type_ids: Rows | None,
        device: torch.device,
    ) -> Batch:
        """Pack a batch and check it against the model's sizes.

        Raises:
            UserError: a sequence that is too long, an id or segment outside its table, shapes that do not fit
                each other, an empty sequence.
        """
        packed = _pack(input_ids, attention_mask, device)
        check_length(int(packed.columns.max()) + 1, config.max_position_embeddings)
        check_range("input_ids", packed.ids, config.vocab_size)
        batch = Batch(packed, None)
        if token_type_ids is None:
            return batch
        types = batch.select(token_type_ids, "token_type_ids")
        check_batch("token_type_ids", types[None])
        check_range("token_type_ids", types, config.type_vocab_size, "type_vocab_size")
        return Batch(packed, types)

    def select(self, values: Rows, name: str) -> Tensor:
        """What belongs to the tokens: (batch, width) or lists as ragged as the ids → (total,)."""
        packed = self.packed
        if isinstance(values, Tensor):
            if tuple(values.shape) != packed.shape:
                raise UserError(
                    f"{name} has the shape {tuple(values.shape)}, input_ids {packed.shape}: they must be the same"
                )
            return values.flatten().index_select(0, packed.cells)
        lengths = tuple(len(row) for row in values)
        if lengths != packed.layout.lengths:
            raise UserError(
                f"{name} has rows of {lengths}, input_ids of {packed.layout.lengths}: they must be the same"
            )
        return _numbers(name, values, packed.ids.device)


def check_length(length: int, positions: int) -> None:
    """Refuse a sequence that is longer than the table of position embeddings.

    Raises:
        UserError: the sequence is too long.
    """
    if length > positions:
        raise UserError(
            f"a sequence of {length} tokens is longer than the model's {positions} positions "
            "(max_position_embeddings): shorten it"
        )


def _pack(input_ids: Rows, attention_mask: Tensor | None, device: torch.device) -> PackedInput:
    if isinstance(input_ids, Tensor):
        return remove_padding(input_ids, attention_mask)
    if attention_mask is not None:
        raise UserError("lists of ids have no padding: leave attention_mask out")
    if not hasattr(input_ids, "__len__"):
        raise UserError(
            f"input_ids is a {type(input_ids).__name__}: give a tensor (batch, length) or a list of lists of ids"
        )
    if not len(input_ids):
        raise UserError("input_ids is empty: give at least one text")
    if not all(hasattr(row, "__len__") for row in input_ids):
        raise UserError("input_ids is a list of single ids: give one list for each text, [input_ids]")
    lengths = [len(row) for row in input_ids]
    if 0 in lengths:
        raise UserError(f"input_ids has no token in row {lengths.index(0)}: leave that text out")
    ids = _numbers("input_ids", input_ids, device)
    check_batch("input_ids", ids[None])
    layout = Layout.of(lengths, device)
    return PackedInput(ids, layout, layout.positions, layout.cells, (layout.batch, layout.longest))


def _numbers(name: str, rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Lists of numbers laid end to end."""
    try:
        return torch.tensor(list(chain.from_iterable(rows)), device=device)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(
            f"{name} holds something else than numbers: give a list of them for each text, as a tokenizer's "
            "encode_batch makes"
        ) from None
