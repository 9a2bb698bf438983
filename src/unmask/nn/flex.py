"""Attention of packed streams on CUDA by FlexAttention: no padding, blocks of other sequences are never looked at.

It has to be compiled (Triton): uncompiled it makes all scores of the stream. The gradient of a bias is added up by
atomic operations, in no fixed order, so that a run that must be deterministic takes rectangles instead.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from unmask.nn.ragged import Layout

#: Tokens of a block, FlexAttention's default.
BLOCK = 128

_MASKS: WeakKeyDictionary[Layout, dict[tuple[int, bool], tuple[Layout, BlockMask]]] = WeakKeyDictionary()


def available(query: Tensor) -> bool:
    """Whether FlexAttention serves such queries: half precision on CUDA, compiled by Triton, in any order."""
    return (
        query.device.type == "cuda"
        and query.dtype in (torch.bfloat16, torch.float16)
        and not torch.are_deterministic_algorithms_enabled()
        and _has_triton()
    )


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_layout: Layout,
    key_layout: Layout,
    bias: Tensor | None,
    causal: bool,
    scale: float,
    *,
    compiled: bool = True,
) -> Tensor:
    """softmax(scale · q kᵀ + bias) v of each sequence; see `nn.attention.attention` for the shapes."""
    streams = (stream.transpose(0, 1)[None] for stream in (query, key, value))
    of_queries, of_keys = query_layout.positions, key_layout.positions

    def biased(score: Tensor, text: Tensor, head: Tensor, place: Tensor, other: Tensor) -> Tensor:
        assert bias is not None
        return score + bias[head, of_queries[place], of_keys[other]]

    function = _compiled() if compiled else flex_attention
    out = function(
        *streams,
        score_mod=None if bias is None else biased,
        block_mask=block_mask(query_layout, key_layout, causal),
        scale=scale,
    )
    return out[0].transpose(0, 1)


def block_mask(queries: Layout, keys: Layout, causal: bool) -> BlockMask:
    """Which blocks of keys each block of queries sees, kept for the layers that ask again.

    It is made from the lengths on the host: asking the token mask of every pair would make total² numbers.

    Args:
        causal: a query sees keys up to its own position; both layouts must be the same then.
    """
    known = _MASKS.setdefault(queries, {})
    name = (id(keys), causal)
    if name not in known:
        # The keys' layout is held on to, so that no other one gets its id.
        known[name] = (keys, _block_mask(queries, keys, causal))
    return known[name][1]


def _block_mask(queries: Layout, keys: Layout, causal: bool) -> BlockMask:
    partial, full = seen_blocks(queries.lengths, keys.lengths, causal)
    of_query = (queries.cells // queries.longest).int()
    of_key = (keys.cells // keys.longest).int()

    def seen(text: Tensor, head: Tensor, place: Tensor, other: Tensor) -> Tensor:
        same = of_query[place] == of_key[other]
        return same & (place >= other) if causal else same

    return BlockMask.from_kv_blocks(
        *_ordered(partial, queries.device),
        *_ordered(full, queries.device),
        BLOCK_SIZE=BLOCK,
        mask_mod=seen,
        seq_lengths=(queries.total, keys.total),
    )


def seen_blocks(
    queries: tuple[int, ...], keys: tuple[int, ...], causal: bool
) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], np.ndarray[Any, np.dtype[np.bool_]]]:
    """(query blocks, key blocks) each: blocks of which some pairs are seen, and of which all are.

    Args:
        queries, keys: the sequences' lengths.
    """
    query_ends, key_ends = np.cumsum(queries), np.cumsum(keys)
    starts = np.arange(0, query_ends[-1], BLOCK)
    ends = np.minimum(starts + BLOCK, query_ends[-1])
    first = np.searchsorted(query_ends, starts, side="right")
    last = np.searchsorted(query_ends, ends - 1, side="right")
    lowest = (key_ends - np.array(keys))[first]
    highest = key_ends[last]
    if causal:
        highest = np.minimum(highest, ends)
    key_starts = np.arange(0, key_ends[-1], BLOCK)
    # The last block is read to its end, where nothing is: it counts as seen in part.
    some = (key_starts < highest[:, None]) & (key_starts + BLOCK > lowest[:, None])
    inside = (key_starts >= lowest[:, None]) & (key_starts + BLOCK <= highest[:, None])
    every = inside & (first == last)[:, None] & (starts + BLOCK <= query_ends[-1])[:, None]
    if causal:
        every &= key_starts + BLOCK <= starts[:, None] + 1
    return some & ~every, every


def _ordered(blocks: np.ndarray[Any, np.dtype[np.bool_]], device: torch.device) -> tuple[Tensor, Tensor]:
    """(1, 1, query blocks) how many, and (1, 1, query blocks, key blocks) which ones, those first."""
    counts = blocks.sum(1).astype(np.int32)
    order = np.argsort(~blocks, axis=1, kind="stable").astype(np.int32)
    return tuple(torch.from_numpy(part)[None, None].to(device, non_blocking=True) for part in (counts, order))  # type: ignore[return-value]


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=True)
