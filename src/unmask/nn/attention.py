"""The one attention function: every model calls it, and the choice of a kernel is made here."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.nn.ragged import Layout


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_layout: Layout,
    key_layout: Layout,
    *,
    bias: Tensor | None = None,
    causal: bool = False,
    scale: float = 1.0,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of each packed sequence over its own keys: softmax(scale · q kᵀ + bias) v.

    Args:
        query: (total_queries, heads, head_width), packed as `query_layout` says.
        key, value: (total_keys, heads, head_width), packed as `key_layout` says; sequence i of the queries
            sees sequence i of the keys.
        bias: (heads, longest_query, longest_key) added to the scores, the same for every sequence.
        causal: a query sees keys up to its own position.
        dropout: probability of dropping an attention weight.

    Returns:
        (total_queries, heads, head_width).
    """
    q = query_layout.pad(query).transpose(1, 2)
    k = key_layout.pad(key).transpose(1, 2)
    v = key_layout.pad(value).transpose(1, 2)
    mask = _mask(query_layout, key_layout, bias, causal)
    if (bias is not None and bias.requires_grad) or dropout > 0:
        # The fused kernel gives the bias no gradient and knows no dropout on a CPU.
        out = _plain(q, k, v, mask, scale, dropout)
    else:
        mask = None if mask is None else mask.to(q.dtype)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return query_layout.unpad(out.transpose(1, 2))


def _mask(queries: Layout, keys: Layout, bias: Tensor | None, causal: bool) -> Tensor | None:
    """(batch or 1, heads or 1, longest_query, longest_key) to add to the scores, or None."""
    mask = None if bias is None else bias[None]
    if causal:
        future = torch.ones(queries.longest, keys.longest, dtype=torch.bool, device=queries.device).triu(1)
        ahead = torch.zeros(future.shape, device=queries.device).masked_fill(future, float("-inf"))
        mask = ahead[None, None] if mask is None else mask + ahead
    if keys.attention_bias is not None:
        mask = keys.attention_bias if mask is None else mask + keys.attention_bias
    return mask


def _plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float) -> Tensor:
    scores = torch.matmul(q if scale == 1.0 else q * scale, k.transpose(-1, -2))
    if mask is not None:
        scores = scores + mask
    weights = torch.softmax(scores, -1, dtype=torch.float32).to(v.dtype)
    return torch.matmul(F.dropout(weights, dropout), v)
