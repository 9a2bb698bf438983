"""The compiled cross-entropy of rows of logits against PyTorch's in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from unmask.nn import lines
from unmask.nn.cross_entropy import cross_entropy_

pytestmark = pytest.mark.skipif(
    not lines.available(torch.float32), reason="this processor lacks the instructions"
)

ROWS, VOCABULARY = 29, 203


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
def test_losses_and_gradients(kind: torch.dtype, tolerance: float, counted: bool, with_bias: bool) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(ROWS, VOCABULARY) * 4).to(kind)
    targets = torch.randint(VOCABULARY, (ROWS,))
    bias = torch.randn(VOCABULARY) if with_bias else None
    counts = torch.rand(ROWS) * 3 if counted else None
    wide = logits.double().requires_grad_()
    wide_bias = torch.zeros(VOCABULARY) if bias is None else bias
    wide_bias = wide_bias.double().requires_grad_()
    expected = F.cross_entropy(wide + wide_bias, targets, reduction="none")
    if counts is not None:
        expected = expected * counts
    wanted, wanted_bias = torch.autograd.grad(expected.sum(), [wide, wide_bias])
    of_bias = torch.zeros(VOCABULARY) if with_bias else None
    losses = cross_entropy_(logits, targets, bias, counts, of_bias=of_bias)
    torch.testing.assert_close(losses.double(), expected, rtol=1e-6, atol=1e-6)
    assert (logits.double() - wanted).norm() <= tolerance * wanted.norm()
    if of_bias is not None:
        torch.testing.assert_close(of_bias.double(), wanted_bias, rtol=1e-5, atol=1e-6)


def test_logits_stay_where_no_gradient_is_wanted() -> None:
    logits = torch.randn(3, 40)
    before = logits.clone()
    cross_entropy_(logits, torch.tensor([0, 5, 39]), gradient=False)
    assert torch.equal(logits, before)


def test_the_bits_do_not_depend_on_the_threads() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(ROWS, VOCABULARY), torch.randint(VOCABULARY, (ROWS,))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            of_bias = torch.zeros(VOCABULARY)
            cross_entropy_(logits.clone(), targets, of_bias=of_bias)
            results.append(of_bias)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_what_is_no_number_stays_none_and_huge_logits_are_finite() -> None:
    logits = torch.tensor([[math.nan] * 20, [1e30] + [0.0] * 19, [-1e30] + [0.0] * 19])
    losses = cross_entropy_(logits, torch.tensor([1, 0, 1]))
    assert math.isnan(losses[0])
    torch.testing.assert_close(losses[1:], torch.tensor([0.0, math.log(19)]))
    assert torch.isfinite(logits[1:]).all()
