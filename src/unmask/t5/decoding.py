"""T5's decoder a few tokens at a time, over caches that are allocated once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.nn.ragged import Layout

if TYPE_CHECKING:
    from unmask.t5.model import T5ForConditionalGeneration


class T5Decoder:
    """The state of decoding a batch: satisfies `unmask.generation.decoder.Decoder`.

    Cross-attention's keys and values are computed once. Self-attention's live in one block a layer,
    (2, rows, heads, capacity, d_kv).
    """

    def __init__(
        self, model: T5ForConditionalGeneration, source: Tensor, layout: Layout, capacity: int
    ) -> None:
        """Args:
        source: (total, d_model) encoder output, packed as `layout` says.
        capacity: the most tokens that a row is fed.
        """
        self.model = model
        self.rows = layout.batch
        config = model.config
        self.cross = [
            tuple(
                layout.pad(layer.cross_attention.split(matrix(source))).transpose(1, 2)
                for matrix in (layer.cross_attention.key, layer.cross_attention.value)
            )
            for layer in model.decoder.layers
        ]
        bias = layout.attention_bias
        self.cross_bias = None if bias is None else bias.to(source.dtype)
        shape = (2, self.rows, config.num_heads, capacity, config.d_kv)
        self.cache = [source.new_zeros(shape) for _ in model.decoder.layers]
        self.filled = torch.zeros(self.rows, dtype=torch.int64, device=source.device)
        # Of each layer: entry capacity - 1 - d is the bias of a key d places before its query.
        biases = model.decoder.biases(1, capacity, first_query=capacity - 1)
        self.biases = [bias[:, 0].to(source.dtype) for bias in biases]

    def step(self, ids: Tensor) -> Tensor:
        """The next logits of each row: (rows,) int64 → (rows, vocab_size) float32."""
        return self.advance(ids[:, None])[:, 0]

    def advance(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Feed several tokens to each row; see `unmask.generation.decoder.Decoder`."""
        model, (rows, n) = self.model, ids.shape
        capacity = self.biases[0].shape[1]
        places = self.filled[:, None] + torch.arange(n, device=ids.device)
        # Padding behind a row's length may lie beyond the cache: it is written over the last place.
        places = places.clamp(max=capacity - 1)
        longest = int(places.max()) + 1
        distance = places[:, :, None] - torch.arange(longest, device=ids.device)
        entries = (capacity - 1 - distance).clamp(max=capacity - 1)
        ahead = (distance < 0)[:, None]
        x = model.embed(ids.flatten())
        batch = torch.arange(rows, device=ids.device)[:, None]
        for layer, line, cache, (key, value) in zip(
            model.decoder.layers, self.biases, self.cache, self.cross, strict=True
        ):
            bias = line[:, entries].transpose(0, 1).masked_fill(ahead, float("-inf"))
            normed = layer.attention_norm(x)
            for kind, matrix in enumerate((layer.attention.key, layer.attention.value)):
                cache[kind][batch, :, places] = layer.attention.split(matrix(normed)).unflatten(0, (rows, n))
            keys, values = cache[:, :, :, :longest]
            x = x + self._attend(layer.attention, normed, keys, values, bias)
            x = x + self._attend(layer.cross_attention, layer.cross_norm(x), key, value, self.cross_bias)
            x = x + layer.feed_forward(layer.feed_forward_norm(x))
        x = model.decoder.final_norm(x)
        if model.config.scale_decoder_outputs:
            x = x * model.config.d_model**-0.5
        self.filled = self.filled + (n if lengths is None else lengths)
        return F.linear(x, model.output_weight).float().unflatten(0, (rows, n))

    def _attend(self, block, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[no-untyped-def]
        query = block.split(block.query(x)).unflatten(0, (keys.shape[0], -1)).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=bias, scale=1.0)
        return block.output(mixed.transpose(1, 2).flatten(0, 1).flatten(1))

    def rewind(self, lengths: Tensor) -> None:
        """Keep the first `lengths` (rows,) tokens of each row's cache."""
        self.filled = lengths

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order: (kept,) int64, repeats allowed."""
        self.rows = rows.shape[0]
        self.cross = [(key[rows], value[rows]) for key, value in self.cross]
        self.cache = [cache[:, rows] for cache in self.cache]
        self.filled = self.filled[rows]
        if self.cross_bias is not None:
            self.cross_bias = self.cross_bias[rows]
