"""Layers that run again for their gradient: the same bits, less kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from several import alone, work_of
from torch import Tensor

from unmask.training.activations import recomputed_layers
from unmask.training.family import Pretraining
from unmask.training.memory import Kept


def step(work: Pretraining, precision: str) -> tuple[Tensor, dict[str, Tensor], int]:
    """A step's loss, its gradients, and how many bytes it keeps for them."""
    work.model.zero_grad(set_to_none=True)
    torch.manual_seed(3)
    kept = Kept(work.model.parameters())
    with kept.counting(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        total = work.loss(2).total
    total.backward()
    gradients = {
        name: each.grad.clone() for name, each in work.model.named_parameters() if each.grad is not None
    }
    return total.detach(), gradients, kept.bytes


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("family", "changes"),
    [("t5", {}), ("electra", {}), ("electra", {"objective": "electric"})],
    ids=["t5", "electra", "electric"],
)
def test_gradients_are_the_same_bits(
    family: str, changes: dict[str, Any], precision: str, data: Path
) -> None:
    work = work_of(family, data, layers=4, **changes)
    loss, gradients, kept = step(work, precision)
    with recomputed_layers(work.model):
        again, its_gradients, its_kept = step(work, precision)
    assert torch.equal(loss, again)
    assert gradients.keys() == its_gradients.keys()
    assert all(torch.equal(gradients[name], its_gradients[name]) for name in gradients)
    assert its_kept < 0.5 * kept
    assert step(work, precision)[2] == kept, "outside of the block all is as it was"


def test_a_run_ends_with_the_same_weights(data: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"steps": 4, "evaluate_every": 2, "optimiser": "adamw"}
    (_, weights), (_, again) = alone(
        data,
        tmp_path,
        [("t5", changes, {"checkpoint_activations": wanted}) for wanted in (False, True)],
    )
    assert all(torch.equal(weights[name], again[name]) for name in weights)
