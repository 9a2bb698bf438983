"""Attention for training on a CPU that keeps nothing but its inputs: the gradient makes the weights again.

The texts are taken a few at a time, so that their scores stay in the processor's cache between the products and the
compiled softmax (`nn/softmax.py`). Making them a second time costs one product more; keeping them, as many numbers as
there are pairs of tokens, costs the memory's bandwidth and, for a T5 of 512 tokens, a third of a step's memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unmask.nn.ragged import Layout
from unmask.nn.softmax import Lines, softmax_, softmax_gradient_

#: Scores that are made at a time: 4 MB of bfloat16.
CELLS = 1 << 21


@dataclass(frozen=True, eq=False)
class Job:
    """What an attention does beside its tensors.

    Attributes:
        queries, keys: the sequences; sequence i of the queries sees sequence i of the keys.
        groups: [first, last) of the sequences that make a rectangle.
        causal, scale: as of `nn.attention.attention`.
        rate, key: of the dropout of weights.
    """

    queries: Layout
    keys: Layout
    groups: list[tuple[int, int]]
    causal: bool
    scale: float
    rate: float
    key: int

    def pieces(self, heads: int) -> Iterator[_Piece]:
        """The groups, cut so that none has more than `CELLS` scores, unless it is a single sequence."""
        rows = np.array(self.queries.rows or range(self.queries.batch))
        query_starts = np.concatenate([[0], np.cumsum(self.queries.lengths)])
        key_starts = np.concatenate([[0], np.cumsum(self.keys.lengths)])
        for first, last in self.groups:
            longest = max(self.queries.lengths[first:last]) * max(self.keys.lengths[first:last])
            texts = max(1, CELLS // (heads * longest))
            for start in range(first, last, texts):
                end = min(start + texts, last)
                yield _Piece(
                    self.queries.part(start, end),
                    self.keys.part(start, end),
                    slice(int(query_starts[start]), int(query_starts[end])),
                    slice(int(key_starts[start]), int(key_starts[end])),
                    rows[start:end],
                )

    def lines(self, piece: _Piece, bias: Tensor | None) -> Lines:
        return Lines(
            np.array(piece.queries.lengths, dtype=np.int64),
            np.array(piece.keys.lengths, dtype=np.int64),
            self.causal,
            self.scale,
            bias,
            self.rate,
            self.key,
            piece.rows,
        )


@dataclass(frozen=True, eq=False)
class _Piece:
    """Some sequences: their layouts, where they lie in the streams, and their numbers in the whole batch."""

    queries: Layout
    keys: Layout
    of_queries: slice
    of_keys: slice
    rows: np.ndarray[Any, np.dtype[np.int64]]


def recomputed_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, job: Job) -> Tensor:
    """softmax(scale · q kᵀ + bias) v of each sequence; see `nn.attention.attention` for shapes.

    Args:
        query, key, value: float32 or bfloat16, on a CPU.
        bias: (heads, longest query, longest key); its gradient is float32.
    """
    bias = None if bias is None else bias.float()
    return _RecomputedAttention.apply(query, key, value, bias, job)


def _rectangle(stream: Tensor, layout: Layout) -> Tensor:
    """(total, heads, width) → (texts, heads, longest, width).

    Contiguous: a product would make it so each time, and much slower for a transposed one.
    """
    return layout.pad(stream).transpose(1, 2).contiguous()


def _into(stream: Tensor, rectangle: Tensor, layout: Layout) -> None:
    """The other way round, into a stream."""
    rectangle = rectangle.transpose(1, 2)
    if layout.is_rectangular:
        layout.pad(stream).copy_(rectangle)
    else:
        stream.copy_(layout.unpad(rectangle))


class _RecomputedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, job: Job) -> Tensor:
        ctx.save_for_backward(q, k, v, bias)
        ctx.job = job
        out = q.new_empty(*q.shape[:2], v.shape[2])
        for piece in job.pieces(q.shape[1]):
            weights = torch.matmul(
                _rectangle(q[piece.of_queries], piece.queries),
                _rectangle(k[piece.of_keys], piece.keys).transpose(-1, -2),
            )
            dropped = softmax_(weights, job.lines(piece, bias))
            mixed = torch.matmul(dropped, _rectangle(v[piece.of_keys], piece.keys))
            _into(out[piece.of_queries], mixed, piece.queries)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias = ctx.saved_tensors
        job = ctx.job
        gradients = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v)]
        of_bias = None
        if bias is not None and ctx.needs_input_grad[3]:
            of_bias = torch.zeros(q.shape[1], job.queries.longest, job.keys.longest)
        for piece in job.pieces(q.shape[1]):
            queries = _rectangle(q[piece.of_queries], piece.queries)
            keys, values = (_rectangle(x[piece.of_keys], piece.keys) for x in (k, v))
            above = _rectangle(upstream[piece.of_queries], piece.queries)
            lines = job.lines(piece, bias)
            weights = torch.matmul(queries, keys.transpose(-1, -2))
            dropped = softmax_(weights, lines)
            _into(gradients[2][piece.of_keys], torch.matmul(dropped.transpose(-1, -2), above), piece.keys)
            scores = torch.matmul(above, values.transpose(-1, -2))
            softmax_gradient_(weights, scores, lines, of_bias)
            _into(gradients[0][piece.of_queries], torch.matmul(scores, keys), piece.queries)
            _into(gradients[1][piece.of_keys], torch.matmul(scores.transpose(-1, -2), queries), piece.keys)
        return *gradients, of_bias, None
