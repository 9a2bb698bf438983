"""What a caller gives a model, padded or ragged, as a packed stream; and results put back in its shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from unmask.electra.config import ElectraConfig
from unmask.errors import UserError
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
            UserError: a sequence that is too long, an id or segment outside its table.
            ValueError: shapes that do not fit each other, an empty sequence.
        """
        packed = _pack(input_ids, attention_mask, device)
        check_length(int(packed.columns.max()) + 1, config.max_position_embeddings)
        _check_range(packed.ids, config.vocab_size, "input_ids", "vocab_size")
        batch = Batch(packed, None)
        if token_type_ids is None:
            return batch
        types = batch.select(token_type_ids, "token_type_ids")
        _check_range(types, config.type_vocab_size, "token_type_ids", "type_vocab_size")
        return Batch(packed, types)

    def select(self, values: Rows, name: str) -> Tensor:
        """What belongs to the tokens: (batch, width) or lists as ragged as the ids → (total,)."""
        packed = self.packed
        if isinstance(values, Tensor):
            if tuple(values.shape) != packed.shape:
                raise ValueError(f"{name} is {tuple(values.shape)}, input_ids {packed.shape}")
            return values.flatten().index_select(0, packed.cells)
        lengths = tuple(len(row) for row in values)
        if lengths != packed.layout.lengths:
            raise ValueError(f"{name} has lengths {lengths}, input_ids {packed.layout.lengths}")
        return torch.tensor(list(chain.from_iterable(values)), device=packed.ids.device)


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
        raise ValueError("lists of ids have no padding: leave attention_mask out")
    layout = Layout.of([len(row) for row in input_ids], device)
    ids = torch.tensor(list(chain.from_iterable(input_ids)), device=device)
    return PackedInput(ids, layout, layout.positions, layout.cells, (layout.batch, layout.longest))


def _check_range(values: Tensor, size: int, name: str, limit: str) -> None:
    low, high = (int(end) for end in values.aminmax())
    if low < 0 or high >= size:
        raise UserError(f"{name} holds {low if low < 0 else high}, the model knows 0 to {size - 1} ({limit})")
