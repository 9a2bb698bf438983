"""Our optimisers beside hand computations and torch's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from unmask.training.optimisers import ScaledAdamW, UncorrectedAdamW, make_optimiser

STEPS = 5


def tensors() -> list[nn.Parameter]:
    """A large matrix, a small one, a vector."""
    draw = torch.Generator().manual_seed(1)
    scales = ((3, 4, 5.0), (4, 2, 1e-5))
    matrices = [torch.randn(rows, columns, generator=draw) * scale for rows, columns, scale in scales]
    return [nn.Parameter(value) for value in (*matrices, torch.randn(6, generator=draw))]


def gradients(step: int, parameters: list[nn.Parameter]) -> list[Tensor]:
    draw = torch.Generator().manual_seed(100 + step)
    return [torch.randn(parameter.shape, generator=draw) for parameter in parameters]


def run(optimiser: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    for step in range(STEPS):
        for parameter, gradient in zip(parameters, gradients(step, parameters), strict=True):
            parameter.grad = gradient
        optimiser.step()


def by_hand(parameters: list[nn.Parameter], rate: float, decay: float) -> list[Tensor]:
    """BERT's AdamWeightDecayOptimizer, line for line: m / (√v + ε) + decay · w, no correction."""
    values = [parameter.detach().double() for parameter in parameters]
    means = [torch.zeros_like(value) for value in values]
    squares = [torch.zeros_like(value) for value in values]
    for step in range(STEPS):
        for number, gradient in enumerate(gradients(step, parameters)):
            gradient = gradient.double()
            means[number] = 0.9 * means[number] + 0.1 * gradient
            squares[number] = 0.999 * squares[number] + 0.001 * gradient**2
            update = means[number] / (squares[number].sqrt() + 1e-6) + decay * values[number]
            values[number] = values[number] - rate * update
    return values


def test_uncorrected_adam_is_berts() -> None:
    ours, theirs = tensors(), by_hand(tensors(), 0.01, 0.1)
    run(UncorrectedAdamW(ours, lr=0.01, eps=1e-6, weight_decay=0.1, fused=True), ours)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.detach(), other.float(), rtol=1e-5, atol=1e-6)
    corrected = tensors()
    run(torch.optim.AdamW(corrected, lr=0.01, eps=1e-6, weight_decay=0.1), corrected)
    assert (corrected[0] - ours[0]).abs().max() > 0.02


def test_scaled_adam_is_adam_at_each_tensors_own_rate() -> None:
    ours = tensors()
    optimiser = ScaledAdamW([{"params": ours}], lr=0.01, eps=1e-6, weight_decay=0.1, fused=True)
    run(optimiser, ours)
    assert [group["lr"] for group in optimiser.param_groups] == [0.01] * 3
    for number, start in enumerate(tensors()):
        alone = torch.optim.AdamW([start], eps=1e-6, weight_decay=0.1)
        for step in range(STEPS):
            size = math.sqrt(float((start.detach().double() ** 2).mean()))
            alone.param_groups[0]["lr"] = 0.01 * max(1e-3, size)
            start.grad = gradients(step, tensors())[number]
            alone.step()
        torch.testing.assert_close(ours[number].detach(), start.detach(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["adamw", "scaled-adamw", "electra-adam"])
def test_decay_spares_vectors_and_frozen_tensors_are_left_alone(name: str) -> None:
    matrix, vector, frozen = (nn.Parameter(torch.ones(shape)) for shape in ((2, 2), (2,), (3, 3)))
    frozen.requires_grad_(False)
    named = [("weight", matrix), ("bias", vector), ("frozen", frozen)]
    optimiser = make_optimiser(name, named, learning_rate=0.1, weight_decay=0.5)  # type: ignore[arg-type]
    for parameter in (matrix, vector):
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    # Decoupled: w · (1 − rate · decay), whatever the gradient.
    torch.testing.assert_close(matrix.detach(), torch.full((2, 2), 0.95))
    assert torch.equal(vector, torch.ones(2))
    owned = {id(tensor) for group in optimiser.param_groups for tensor in group["params"]}
    assert owned == {id(matrix), id(vector)}
