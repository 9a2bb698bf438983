"""T5's decoder one token at a time, over caches that are allocated once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from unmask.nn.ragged import Layout

if TYPE_CHECKING:
    from unmask.t5.model import T5ForConditionalGeneration


class T5Decoder:
    """The state of decoding a batch: satisfies `unmask.generation.autoregressive.Decoder`.

    Cross-attention's keys and values are computed once. Self-attention's live in one block a layer,
    (rows, heads, limit, d_kv). The position bias of step t is a slice of one vector.
    """

    def __init__(
        self, model: T5ForConditionalGeneration, source: Tensor, layout: Layout, limit: int, *, copies: int
    ) -> None:
        """Args:
        source: (total, d_model) encoder output, packed as `layout` says.
        limit: the most steps that will be taken.
        copies: rows decoded for each source, side by side.
        """
        self.model = model
        self.rows = layout.batch * copies
        self.step_index = 0
        config = model.config
        self.cross = [
            tuple(
                layout.pad(layer.cross_attention.split(matrix(source)))
                .transpose(1, 2)
                .repeat_interleave(copies, 0)
                for matrix in (layer.cross_attention.key, layer.cross_attention.value)
            )
            for layer in model.decoder.layers
        ]
        bias = layout.attention_bias
        self.cross_bias = None if bias is None else bias.to(source.dtype).repeat_interleave(copies, 0)
        shape = (2, self.rows, config.num_heads, limit, config.d_kv)
        self.cache = [source.new_empty(shape) for _ in model.decoder.layers]
        # Each layer's bias of the last query over all keys: the query at step t sees its last t + 1 entries.
        self.biases = [
            bias.to(source.dtype) for bias in model.decoder.biases(1, limit, first_query=limit - 1)
        ]

    def step(self, ids: Tensor) -> Tensor:
        """The next logits of each row: (rows,) int64 → (rows, vocab_size) float32."""
        model, t = self.model, self.step_index
        x = model.embed(ids)
        for layer, bias, cache, (key, value) in zip(
            model.decoder.layers, self.biases, self.cache, self.cross, strict=True
        ):
            normed = layer.attention_norm(x)
            cache[0, :, :, t] = layer.attention.split(layer.attention.key(normed))
            cache[1, :, :, t] = layer.attention.split(layer.attention.value(normed))
            keys, values = cache[:, :, :, : t + 1]
            x = x + self._attend(layer.attention, normed, keys, values, bias[:, :, bias.shape[2] - t - 1 :])
            x = x + self._attend(layer.cross_attention, layer.cross_norm(x), key, value, self.cross_bias)
            x = x + layer.feed_forward(layer.feed_forward_norm(x))
        x = model.decoder.final_norm(x)
        if model.config.scale_decoder_outputs:
            x = x * model.config.d_model**-0.5
        self.step_index += 1
        return F.linear(x, model.output_weight).float()

    def _attend(self, block, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[no-untyped-def]
        query = block.split(block.query(x)).unsqueeze(2)
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=bias, scale=1.0)
        return block.output(mixed.flatten(1))

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order: (kept,) int64."""
        self.rows = rows.shape[0]
        self.cross = [(key[rows], value[rows]) for key, value in self.cross]
        self.cache = [cache[:, rows] for cache in self.cache]
        if self.cross_bias is not None:
            self.cross_bias = self.cross_bias[rows]
