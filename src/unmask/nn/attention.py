"""The one attention function: every model calls it, and the choice of a kernel is made here."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.nn import lines
from unmask.nn.dropout import dropout as drop
from unmask.nn.dropout import new_key
from unmask.nn.ragged import Layout
from unmask.nn.recomputed_attention import Job, recomputed_attention


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
        dropout: probability of dropping an attention weight; which ones depends on a key that is drawn here, and on
            the numbers of the sequences in the whole batch (`Layout.query_places`).

    Returns:
        (total_queries, heads, head_width).
    """
    groups = _groups(query_layout.lengths, key_layout.lengths)
    trained = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (query, key, value, bias)
    )
    if trained and query.device.type == "cpu" and lines.available(query.dtype):
        drawn = int(new_key(query.device)) if dropout else 0
        job = Job(query_layout, key_layout, groups, causal, scale, dropout, drawn)
        return recomputed_attention(query, key, value, bias, job)
    # FlexAttention adds up the gradient of the bias in any order.
    if query.device.type == "cuda" and not dropout and not torch.are_deterministic_algorithms_enabled():
        # Here, since it takes its time to be imported.
        from unmask.nn import flex

        if flex.available(query):
            return flex.attend(query, key, value, query_layout, key_layout, bias, causal, scale)
    parts = []
    key_of_dropout = new_key(query.device) if dropout else None
    queries_done = keys_done = 0
    for first, last in groups:
        some_queries, some_keys = query_layout.part(first, last), key_layout.part(first, last)
        of_queries = slice(queries_done, queries_done + some_queries.total)
        of_keys = slice(keys_done, keys_done + some_keys.total)
        queries_done, keys_done = of_queries.stop, of_keys.stop
        part_bias = None if bias is None else bias[:, : some_queries.longest, : some_keys.longest]
        out = _rectangle_attention(
            some_queries.pad(query[of_queries]).transpose(1, 2),
            some_keys.pad(key[of_keys]).transpose(1, 2),
            some_keys.pad(value[of_keys]).transpose(1, 2),
            _mask(some_queries, some_keys, part_bias, causal),
            scale,
            None
            if key_of_dropout is None
            else _Dropout(dropout, some_queries.query_places(query.shape[1]), key_of_dropout),
        )
        parts.append(some_queries.unpad(out.transpose(1, 2)))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def attention_by_distance(query: Tensor, key: Tensor, value: Tensor, windows: Tensor) -> Tensor:
    """softmax(q kᵀ + bias) v of texts of one length, with a bias that depends on the distance alone.

    Args:
        query, key, value: (texts, heads, length, head_width).
        windows: (heads, n, n) for any n ≥ length, of `RelativePositionBias.windows`.

    Returns:
        (texts, heads, length, head_width).
    """
    length = query.shape[2]
    bias = windows[None, :, windows.shape[-1] - length :, :length]
    if query.device.type != "cpu":
        # Kernels of other devices take aligned rows only.
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias.flip(2), scale=1.0)
    # Queries from last to first, as the windows are: the bias of a long text stays one number for each distance,
    # where a matrix of all pairs would be made, and read from memory in every layer.
    return F.scaled_dot_product_attention(query.flip(2), key, value, attn_mask=bias, scale=1.0).flip(2)


#: Cells of padding that a group may hold for each cell in use, before it is cut; and the cells in use that
#: make a group worth a call of its own.
PADDING_SHARE = 0.25
GROUP_CELLS = 16_384


def _groups(queries: tuple[int, ...], keys: tuple[int, ...]) -> list[tuple[int, int]]:
    """Cut a batch into runs of sequences [first, last) of similar length, each its own rectangle.

    Batches whose sequences come in order of length have hardly any padding then, whatever their lengths are.
    """
    groups = []
    first, used, wide, high = 0, 0, 0, 0
    for place, (wanted, seen) in enumerate(zip(queries, keys, strict=True)):
        new_wide, new_high = max(wide, wanted), max(high, seen)
        cells = (place + 1 - first) * new_wide * new_high
        if used >= GROUP_CELLS and cells > (1 + PADDING_SHARE) * (used + wanted * seen):
            groups.append((first, place))
            first, used, new_wide, new_high = place, 0, wanted, seen
        used += wanted * seen
        wide, high = new_wide, new_high
    return [*groups, (first, len(queries))]


class _Dropout(NamedTuple):
    """Of attention weights: how many, the numbers of their lines (batch, heads, queries), and the key."""

    rate: float
    places: Tensor
    key: Tensor


def _rectangle_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: _Dropout | None
) -> Tensor:
    """(batch, heads, queries, width) · (batch, heads, keys, width) → (batch, heads, queries, width)."""
    if dropout is not None or (mask is not None and mask.requires_grad):
        # The fused kernel gives the bias no gradient and knows no dropout on a CPU.
        return _plain(q, k, v, mask, scale, dropout)
    mask = None if mask is None else mask.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


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


def _plain(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: _Dropout | None
) -> Tensor:
    scores = torch.matmul(q if scale == 1.0 else q * scale, k.transpose(-1, -2))
    if mask is not None:
        scores = scores + mask
    wide = torch.promote_types(scores.dtype, torch.float32)
    weights = torch.softmax(scores, -1, dtype=wide).to(v.dtype)
    if dropout is not None:
        weights = drop(weights, dropout.rate, dropout.places, key=dropout.key)
    return torch.matmul(weights, v)
