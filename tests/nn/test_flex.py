"""What FlexAttention is told: its blocks and its scores. Gradients and speed need CUDA."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.nn import flex
from unmask.nn.attention import attention
from unmask.nn.ragged import Layout

LENGTHS = st.lists(st.integers(1, 400), min_size=1, max_size=6)


def tokens_seen(queries: list[int], keys: list[int], causal: bool) -> torch.Tensor:
    """(queries, keys) bool, written out."""
    rows = torch.arange(len(queries)).repeat_interleave(torch.tensor(queries))
    columns = torch.arange(len(keys)).repeat_interleave(torch.tensor(keys))
    seen = rows[:, None] == columns
    return seen.tril() if causal else seen


@given(queries=LENGTHS, keys=LENGTHS, causal=st.booleans())
@settings(max_examples=60, deadline=None)
def test_blocks_are_those_of_the_tokens(queries: list[int], keys: list[int], causal: bool) -> None:
    size = min(len(queries), len(keys))
    queries = queries[:size]
    keys = queries if causal else keys[:size]
    some, every = flex.seen_blocks(tuple(queries), tuple(keys), causal)
    seen = tokens_seen(queries, keys, causal)
    block = flex.BLOCK
    for row in range(some.shape[0]):
        for column in range(some.shape[1]):
            part = seen[row * block : (row + 1) * block, column * block : (column + 1) * block]
            whole = part.shape == (block, block) and bool(part.all())
            assert not (every[row, column] and not whole)
            assert not (some[row, column] and every[row, column])
            # A block that no pair needs may be read, one that a pair needs must be.
            assert not (part.any() and not (some[row, column] or every[row, column]))


def test_blocks_of_one_long_text_are_whole() -> None:
    some, every = flex.seen_blocks((512,), (512,), False)
    assert every.all()
    assert not some.any()
    some, every = flex.seen_blocks((512,), (512,), True)
    assert torch.equal(torch.from_numpy(every), torch.ones(4, 4, dtype=torch.bool).tril(-1))
    assert torch.equal(torch.from_numpy(some), torch.eye(4, dtype=torch.bool))


@torch.no_grad()
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_scores_are_those_of_the_other_path(causal: bool, biased: bool) -> None:
    torch.manual_seed(0)
    queries = [150, 3, 130]
    keys = queries if causal else [40, 200, 90]
    layouts = Layout.of(queries), Layout.of(keys)
    q = torch.randn(sum(queries), 2, 16)
    k, v = torch.randn(2, sum(keys), 2, 16).unbind(0)
    bias = torch.randn(2, max(queries), max(keys)) if biased else None
    found = flex.attend(q, k, v, *layouts, bias, causal, 0.3, compiled=False)
    wanted = attention(q, k, v, *layouts, bias=bias, causal=causal, scale=0.3)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert flex.block_mask(*layouts, causal) is flex.block_mask(*layouts, causal)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gradients_on_cuda_are_those_of_float64() -> None:
    torch.manual_seed(0)
    lengths = [150, 3, 130]
    layout = Layout.of(lengths, "cuda")
    leaves = [
        torch.randn(sum(lengths), 2, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for _ in range(3)
    ]
    leaves.append(torch.randn(2, 150, 150, device="cuda", requires_grad=True))
    out = attention(*leaves[:3], layout, layout, bias=leaves[3])
    wide = [leaf.detach().double().cpu().requires_grad_() for leaf in leaves]
    cpu = Layout.of(lengths)
    expected = attention(*wide[:3], cpu, cpu, bias=wide[3])
    upstream = torch.randn(expected.shape, dtype=torch.float64)
    found = torch.autograd.grad(out, leaves, upstream.to(out))
    wanted = torch.autograd.grad(expected, wide, upstream)
    for one, other in zip((out, *found), (expected, *wanted), strict=True):
        assert (one.double().cpu() - other).norm() <= 2e-2 * other.norm()
