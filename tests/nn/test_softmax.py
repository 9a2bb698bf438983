"""The compiled softmax of attention scores and its gradient, through the attention that uses it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unmask.nn import lines, recomputed_attention
from unmask.nn.attention import attention
from unmask.nn.ragged import Layout

pytestmark = pytest.mark.skipif(
    not lines.available(torch.float32), reason="this processor lacks the instructions"
)

QUERIES, KEYS, HEADS, WIDTH = [37, 1, 50, 18], [40, 3, 33, 18], 3, 8


def exact(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, keys: list[int], causal: bool) -> Tensor:
    """In float64, one sequence after the other."""
    queries = QUERIES if len(q) == sum(QUERIES) else keys
    parts = []
    for some, these, values in zip(q.split(queries), k.split(keys), v.split(keys), strict=True):
        scores = torch.einsum("qhd,khd->hqk", some, these) * 0.5
        if bias is not None:
            scores = scores + bias[:, : some.shape[0], : these.shape[0]]
        if causal:
            future = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(future, -math.inf)
        parts.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), values))
    return torch.cat(parts)


@pytest.mark.parametrize("pieces", [1, 10_000])
@pytest.mark.parametrize(("causal", "biased"), [(False, True), (True, True), (False, False)])
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_values_and_gradients_are_those_of_float64(
    monkeypatch: pytest.MonkeyPatch,
    kind: torch.dtype,
    tolerance: float,
    causal: bool,
    biased: bool,
    pieces: int,
) -> None:
    monkeypatch.setattr(recomputed_attention, "CELLS", pieces)
    torch.manual_seed(0)
    keys = QUERIES if causal else KEYS
    shapes = [(sum(QUERIES), HEADS, WIDTH), (sum(keys), HEADS, WIDTH), (sum(keys), HEADS, WIDTH)]
    leaves = [torch.randn(shape).to(kind).requires_grad_() for shape in shapes]
    bias = torch.randn(HEADS, max(QUERIES), max(keys), requires_grad=True) if biased else None
    out = attention(*leaves, Layout.of(QUERIES), Layout.of(keys), bias=bias, causal=causal, scale=0.5)
    upstream = torch.randn(out.shape).to(kind)
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    wide_bias = None if bias is None else bias.detach().double().requires_grad_()
    expected = exact(*wide, wide_bias, keys, causal)
    if bias is not None and wide_bias is not None:
        leaves, wide = [*leaves, bias], [*wide, wide_bias]
    found = torch.autograd.grad(out, leaves, upstream)
    wanted = torch.autograd.grad(expected, wide, upstream.double())
    for one, other in zip((out, *found), (expected, *wanted), strict=True):
        assert (one.double() - other).norm() <= tolerance * other.norm()


def test_the_bits_do_not_depend_on_the_threads() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(sum(QUERIES), HEADS, WIDTH, requires_grad=True) for _ in range(3))
    bias = torch.randn(HEADS, 50, 50, requires_grad=True)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            out = attention(q, k, v, Layout.of(QUERIES), Layout.of(QUERIES), bias=bias)
            results.append(torch.autograd.grad(out.sum(), bias)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_a_score_that_is_no_number_stays_none() -> None:
    q, k, v = (torch.randn(4, 1, 4, requires_grad=True) for _ in range(3))
    with torch.no_grad():
        q[1] = math.nan
    out = attention(q, k, v, Layout.of([4]), Layout.of([4]))
    assert torch.isfinite(out[[0, 2, 3]]).all()
    assert torch.isnan(out[1]).all()


def dropped(values: Tensor, lengths: list[int], rate: float) -> tuple[Tensor, list[Tensor]]:
    """Attention with dropout of its weights; queries and keys are the same for all callers."""
    torch.manual_seed(1)
    q, k = (torch.randn(sum(lengths), HEADS, WIDTH, requires_grad=True) for _ in range(2))
    layout = Layout.of(lengths)
    torch.manual_seed(2)
    return attention(q, k, values, layout, layout, scale=0.5, dropout=rate), [q, k]


@pytest.mark.parametrize("pieces", [1, 10_000])
def test_dropout_has_the_gradient_of_its_mask(monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    monkeypatch.setattr(recomputed_attention, "CELLS", pieces)
    lengths, rate = [20, 31, 7], 0.3
    # With unit vectors as values the weights themselves come out.
    units = torch.cat([torch.eye(n, 31) for n in lengths])[:, None].expand(-1, HEADS, -1).contiguous()
    weights = dropped(units, lengths, rate)[0]
    kept = weights != 0
    values = torch.randn(sum(lengths), HEADS, WIDTH, requires_grad=True)
    out, leaves = dropped(values, lengths, rate)
    wide = [leaf.detach().double().requires_grad_() for leaf in (*leaves, values)]
    parts = []
    for q, k, v, mask in zip(*(x.split(lengths) for x in (*wide, kept)), strict=True):
        scores = (torch.einsum("qhd,khd->hqk", q, k) * 0.5).softmax(-1)
        mask = mask.transpose(0, 1)[:, :, : len(k)]
        parts.append(torch.einsum("hqk,khd->qhd", scores * mask / (1 - rate), v))
    expected = torch.cat(parts)
    upstream = torch.randn(out.shape)
    found = torch.autograd.grad(out, [*leaves, values], upstream)
    wanted = torch.autograd.grad(expected, wide, upstream.double())
    for one, other in zip((out, *found), (expected, *wanted), strict=True):
        assert (one.double() - other).norm() <= 1e-6 * other.norm()
    share = 1 - kept.sum() / (HEADS * sum(n * n for n in lengths))
    assert abs(share - rate) < 0.03  # of 4,230 draws


def test_a_text_has_the_same_mask_whatever_is_beside_it() -> None:
    units = torch.eye(20)[:, None].expand(-1, HEADS, -1).contiguous()
    alone = dropped(units, [20], 0.5)[0]
    longer = torch.cat([units, torch.zeros(50, HEADS, 20)])
    beside = dropped(longer, [20, 50], 0.5)[0]
    assert torch.equal(alone != 0, beside[:20] != 0)
    # Texts, heads and queries have masks of their own.
    assert len({tuple(line) for line in (alone != 0).flatten(0, 1).tolist()}) == HEADS * 20
