"""The decoder of an encoder–decoder a few tokens at a time, with the keys and values of what it was fed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.nn.ragged import Layout

if TYPE_CHECKING:
    from unmask.electra.encoder_decoder import CrossAttention, DecoderLayer, EncoderDecoderModel
    from unmask.electra.model import ElectraLayer


@dataclass(slots=True)
class _Cache:
    """A layer's keys and values: (rows, heads, capacity, head_width) of the target, (rows, heads, longest source,
    head_width) of the source."""

    keys: Tensor
    values: Tensor
    source_keys: Tensor
    source_values: Tensor

    def select(self, rows: Tensor) -> None:
        for name in ("keys", "values", "source_keys", "source_values"):
            setattr(self, name, getattr(self, name).index_select(0, rows))


class CachedDecoder:
    """The state of decoding a batch: satisfies `unmask.generation.decoder.Decoder`."""

    def __init__(self, model: EncoderDecoderModel, source: Tensor, layout: Layout, capacity: int) -> None:
        """Args:
        source: (total, hidden_size) encoder output, packed as `layout` says.
        capacity: the most tokens that a row is fed.
        """
        self.model, self.device = model, source.device
        self.lengths = [0] * layout.batch
        mask = layout.mask
        #: (rows, 1, 1, longest source) bool, True on tokens; None: all are.
        self.seen = None if mask is None else mask[:, None, None]
        self.layers = cast("list[DecoderLayer]", list(model.decoder.layers))
        self.caches = [self._cache(layer, source, layout, capacity) for layer in self.layers]

    @staticmethod
    def _cache(layer: DecoderLayer, source: Tensor, layout: Layout, capacity: int) -> _Cache:
        cross = layer.cross
        keys = layout.pad(cross.split(cross.key(source))).transpose(1, 2)
        values = layout.pad(cross.split(cross.value(source))).transpose(1, 2)
        empty = keys.new_zeros(layout.batch, keys.shape[1], capacity, keys.shape[3])
        return _Cache(empty, empty.clone(), keys, values)

    @property
    def rows(self) -> int:
        return len(self.lengths)

    def step(self, ids: Tensor) -> Tensor:
        """Feed one token to each row, (rows,) → the next logits, (rows, vocab_size) float32."""
        return self.advance(ids[:, None])[:, 0]

    def advance(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Feed several tokens to each row.

        Args:
            ids: (rows, n) int64.
            lengths: (rows,) int64, how many of the n tokens each row has, at least 1; None: all of them.

        Returns:
            (rows, n, vocab_size) float32: the logits behind each token; behind a row's length they mean nothing.
        """
        rows, n = ids.shape
        fed = [n] * rows if lengths is None else lengths.tolist()
        before = torch.tensor(self.lengths, device=self.device)
        self.lengths = [length + more for length, more in zip(self.lengths, fed, strict=True)]
        reach = max(self.lengths)
        columns = torch.arange(n, device=self.device)
        places = before[:, None] + columns
        is_fed = columns < torch.tensor(fed, device=self.device)[:, None]
        visible = torch.arange(reach, device=self.device) <= places[..., None]
        decoder = self.model.decoder
        last = decoder.config.max_position_embeddings - 1
        layout = Layout.of([n] * rows, self.device)
        x = decoder.embed(ids.flatten(), layout, places.clamp(max=last).flatten())
        row, column = is_fed.nonzero().unbind(1)
        written = (row, places[row, column])
        for layer, cache in zip(self.layers, self.caches, strict=True):
            own, cross = layer.own, layer.cross
            keys = own.split(own.key(x)).unflatten(0, (rows, n))
            values = own.split(own.value(x)).unflatten(0, (rows, n))
            cache.keys.transpose(1, 2)[written] = keys[row, column]
            cache.values.transpose(1, 2)[written] = values[row, column]
            x = own.add_attention(
                x, _mix(own, x, n, cache.keys[:, :, :reach], cache.values[:, :, :reach], visible[:, None])
            )
            x = cross.add_attention(x, _mix(cross, x, n, cache.source_keys, cache.source_values, self.seen))
            x = own.feed_forward(x)
        return self.model.logits(x).float().view(rows, n, -1)

    def rewind(self, lengths: Tensor) -> None:
        """Keep the first `lengths` (rows,) tokens of each row's cache; rows may differ."""
        self.lengths = lengths.tolist()

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order: (kept,) int64, repeats allowed."""
        chosen = rows.tolist()
        if chosen == list(range(self.rows)):
            return
        rows = rows.to(self.device)
        self.lengths = [self.lengths[row] for row in chosen]
        self.seen = None if self.seen is None else self.seen.index_select(0, rows)
        for cache in self.caches:
            cache.select(rows)


def _mix(
    block: ElectraLayer | CrossAttention, x: Tensor, n: int, keys: Tensor, values: Tensor, seen: Tensor | None
) -> Tensor:
    """Attention of (rows · n, hidden_size) over cached keys → (rows · n, heads, head_width)."""
    query = block.split(block.query(x)).unflatten(0, (-1, n)).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=seen)
    return mixed.transpose(1, 2).flatten(0, 1)
