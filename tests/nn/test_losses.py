"""The chunked cross-entropy against PyTorch's, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from unmask.nn import losses
from unmask.nn.losses import CHUNK_ROWS, linear_cross_entropy, linear_log_probabilities

WIDTH, VOCABULARY = 6, 11


def problem(rows: int, kind: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    hidden = torch.randn(rows, WIDTH, dtype=kind, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, dtype=kind, requires_grad=True)
    bias = torch.randn(VOCABULARY, dtype=kind, requires_grad=True)
    return hidden, weight, bias, torch.randint(VOCABULARY, (rows,))


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("rows", [1, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1, 2 * CHUNK_ROWS + 5])
def test_value_and_gradients(rows: int, with_bias: bool) -> None:
    hidden, weight, bias, targets = problem(rows)
    leaves = [hidden, weight, bias] if with_bias else [hidden, weight]
    loss = linear_cross_entropy(hidden, weight, targets, bias if with_bias else None)
    logits = F.linear(hidden, weight, bias if with_bias else None)
    expected = F.cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-10)
    # An upstream factor other than 1, as a mean over tokens has.
    found = torch.autograd.grad(loss * 0.3, leaves)
    wanted = torch.autograd.grad(expected * 0.3, leaves)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_rows_of_different_weight() -> None:
    hidden, weight, bias, targets = problem(CHUNK_ROWS + 5)
    counts = torch.rand(CHUNK_ROWS + 5, dtype=torch.float64) * 3
    loss = linear_cross_entropy(hidden, weight, targets, bias, row_weights=counts)
    expected = (F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="none") * counts).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-10)
    found, wanted = (torch.autograd.grad(each, [hidden, weight, bias]) for each in (loss, expected))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_label_smoothing(weighted: bool) -> None:
    hidden, weight, bias, targets = problem(CHUNK_ROWS + 5)
    counts = torch.rand(CHUNK_ROWS + 5, dtype=torch.float64) if weighted else None
    loss = linear_cross_entropy(hidden, weight, targets, bias, row_weights=counts, label_smoothing=0.2)
    logits = F.linear(hidden, weight, bias)
    losses = F.cross_entropy(logits, targets, reduction="none", label_smoothing=0.2)
    expected = (losses if counts is None else losses * counts).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-10)
    found, wanted = (torch.autograd.grad(each, [hidden, weight, bias]) for each in (loss, expected))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("trained", [0, 1, 2])
def test_one_trained_input_is_enough(trained: int) -> None:
    *tensors, targets = problem(5)
    for place, tensor in enumerate(tensors):
        tensor.requires_grad_(place == trained)
    hidden, weight, bias = tensors
    (found,) = torch.autograd.grad(linear_cross_entropy(hidden, weight, targets, bias), tensors[trained])
    expected = F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="sum")
    (wanted,) = torch.autograd.grad(expected, tensors[trained])
    torch.testing.assert_close(found, wanted)


def test_huge_logits_stay_finite() -> None:
    hidden, weight, _, targets = problem(4, torch.float32)
    loss = linear_cross_entropy(hidden * 1e4, weight, targets)
    assert torch.isfinite(loss)
    torch.testing.assert_close(loss, F.cross_entropy(hidden @ weight.t() * 1e4, targets, reduction="sum"))


def test_bfloat16_autocast_sums_in_float32() -> None:
    torch.manual_seed(0)
    hidden, weight, bias, targets = problem(600, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, targets, bias)
    assert loss.dtype == torch.float32
    expected = F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=2e-3, atol=0)
    found = torch.autograd.grad(loss, (hidden, weight, bias))
    wanted = torch.autograd.grad(expected, (hidden, weight, bias))
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float32
        assert F.cosine_similarity(one.flatten(), other.flatten(), 0) > 0.999


def test_bfloat16_weights_keep_their_type() -> None:
    hidden, weight, _, targets = problem(300, torch.bfloat16)
    loss = linear_cross_entropy(hidden, weight, targets)
    assert loss.dtype == torch.float32
    loss.backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.bfloat16
    expected = F.cross_entropy(F.linear(hidden.float(), weight.float()), targets, reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=5e-3, atol=0)


def test_no_gradients_are_made_where_none_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation must not pay for training's products."""
    hidden, weight, _, targets = problem(3)

    def refuse(*_: object) -> None:
        raise AssertionError("a gradient was made")

    monkeypatch.setattr(losses, "_gradient_of_logits", refuse)
    with torch.no_grad():
        loss = linear_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(loss, F.cross_entropy(F.linear(hidden, weight), targets, reduction="sum"))


@pytest.mark.parametrize("bias", [True, False])
def test_log_probabilities_of_rows(bias: bool) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(600, 8, requires_grad=True)
    weight = torch.randn(40, 8, requires_grad=True)
    offset = torch.randn(40, requires_grad=True) if bias else None
    targets = torch.randint(40, (600,))
    found = linear_log_probabilities(hidden, weight, targets, offset)
    logits = torch.nn.functional.linear(hidden, weight, offset)
    wanted = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(found, wanted)
    upstream = torch.randn(600)
    inputs = [tensor for tensor in (hidden, weight, offset) if tensor is not None]
    ours, theirs = (torch.autograd.grad(value, inputs, upstream) for value in (found, wanted))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        assert torch.equal(linear_log_probabilities(hidden, weight, targets, offset), found)
