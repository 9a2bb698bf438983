"""The doctor's measurements: what a step takes is what it says, with data and without."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unmask.data.shards import Shards
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.training import doctor, memory, trial
from unmask.training.doctor import examine, reckoned_memory, wanted_examples
from unmask.training.memory import Kept, State, state_of
from unmask.training.optimisers import make_optimiser
from unmask.training.recipe import PretrainRecipe
from unmask.training.trial import Trial, trial_size

CPU = torch.device("cpu")
TABLE: dict[str, Any] = {
    "family": "electra",
    "vocab_size": 140,
    "layers": 1,
    "width": 16,
    "heads": 2,
    "feed_forward_width": 32,
    "length": 32,
    "batch_size": 8,
    "steps": 1000,
    "learning_rate": 1e-3,
    "precision": "float32",
    "warmup_steps": 50,
    "checkpoint_every": 10,
    "evaluate_every": 100,
}
TRIAL = Trial(
    examples=4,
    tokens=400,
    flops=1e9,
    seconds=0.5,
    steps=3,
    precision="float32",
    machine_peak=4e9,
    kept=1000,
    peak=5000,
)


@pytest.mark.parametrize("optimiser", ["adamw", "scaled-adamw", "electra-adam", "adafactor", "muon"])
def test_the_state_is_what_a_step_leaves(optimiser: Any) -> None:
    model = nn.Module()
    model.layers = nn.ModuleList([nn.Linear(256, 192), nn.Linear(192, 10)])
    optimise = make_optimiser(optimiser, model.named_parameters(), learning_rate=1e-3, weight_decay=0.0)
    model.layers[1](model.layers[0](torch.ones(2, 256))).sum().backward()
    optimise.step()
    held = {
        id(tensor): tensor for state in optimise.state_dict()["state"].values() for tensor in state.values()
    }
    numbers = sum(tensor.nbytes for tensor in held.values() if tensor.dim())
    state = state_of(model, optimiser, with_average=True)
    assert state.optimiser == numbers
    assert state.weights == state.gradients == state.average == sum(p.nbytes for p in model.parameters())
    assert state.total == 3 * state.weights + numbers and state.checkpoint == 2 * state.weights + numbers


def test_what_is_kept_for_the_backward_pass() -> None:
    linear = nn.Linear(64, 32, bias=False)
    kept = Kept(linear.parameters())
    x = torch.ones(10, 64, requires_grad=True)
    with kept.counting():
        y = linear(x * 2)
        (y.tanh() * y.view(10, 32)).sum()
    # The doubled input, the product and its tanh; views are the product, and the weight is no activation.
    assert kept.bytes == 4 * (10 * 64 + 10 * 32 + 10 * 32)


def test_a_smaller_batch_is_tried_where_the_machine_is_slow() -> None:
    recipe = PretrainRecipe(**TABLE)
    assert trial_size(recipe, 1e3, 1e9) == 8
    assert trial_size(recipe, 1e9 / 3, 1e9) == 3
    assert trial_size(recipe, 1e12, 1e9) == 1
    assert trial_size(dataclasses.replace(recipe, batch_size=None, batch_tokens=320), 1e3, 1e9) == 10


def test_reckoning_from_a_trial() -> None:
    recipe = PretrainRecipe(**TABLE)
    state = State(weights=800, gradients=800, optimiser=1600, average=0)
    assert wanted_examples(recipe, TRIAL) == 8
    # 3200 and 2 · 1000, and the 800 that the trial held beyond what is reckoned.
    assert reckoned_memory(recipe, state, TRIAL) == 6000
    assert reckoned_memory(recipe, dataclasses.replace(state, copy=2400), TRIAL) == 8400
    assert wanted_examples(dataclasses.replace(recipe, batch_size=None, batch_tokens=1200), TRIAL) == 12
    facts = doctor._trial_facts(recipe, state, TRIAL)
    assert facts["measured"] == "3 steps of 4 of a step's 8 examples, float32: 0.5 s each, 800 tokens/s"
    assert facts["of the machine"].startswith("2 GFLOP/s, 50% of its fastest product")
    assert facts["the run"].startswith("1,000 steps, 2 TFLOP, 800 ktokens, 17 minutes")


def test_what_does_not_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = PretrainRecipe(**TABLE | {"batch_size": 4000})
    state = State(weights=800, gradients=800, optimiser=1600, average=0)
    (found,) = doctor._check_memory(recipe, state, TRIAL, 100_000)
    assert "a step of 4,000 examples" in found and "give batch_size 364 or less" in found
    fits = dataclasses.replace(recipe, batch_size=364)
    assert not list(doctor._check_memory(fits, state, TRIAL, 100_000))
    (found,) = doctor._check_memory(recipe, state, None, 100)
    assert "choose adafactor" in found
    usage = type("Usage", (), {"free": 3 * state.checkpoint})
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage)
    (found,) = doctor._check_disk(recipe, state, tmp_path / "a" / "b")
    assert "3 checkpoints and the model" in found and str(tmp_path) in found
    kept = dataclasses.replace(recipe, keep_every=100)
    assert "13 checkpoints" in next(doctor._check_disk(kept, state, tmp_path))
    assert not list(doctor._check_disk(dataclasses.replace(recipe, checkpoint_every=0), state, tmp_path))


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial of some steps, whatever time they take."""
    monkeypatch.setattr(trial, "SECONDS", 0.0)
    monkeypatch.setattr(trial, "matrix_peak", lambda device, precision: 1e12)


@pytest.mark.usefixtures("brief")
def test_with_data(shards: Shards, tokenizer: ElectraTokenizer, tmp_path: Path) -> None:
    found = examine(PretrainRecipe(**TABLE), shards, tokenizer, tmp_path, device=CPU)
    assert found.facts["measured"].startswith("3 steps of 8 examples, float32")
    assert "documents" in found.facts["data"]
    assert any("are read" in each for each in found.warnings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("family", ["t5", "electra"])
def test_without_data(family: str, tmp_path: Path) -> None:
    recipe = PretrainRecipe(
        **TABLE | {"family": family, "vocab_size": 2000, "optimiser": "adafactor", "schedule": "cosine"}
    )
    found = examine(recipe, None, None, tmp_path, device=CPU)
    assert "data" not in found.facts
    assert int(found.facts["parameters"].replace(",", "")) > 2000 * 16
    assert "PFLOP" in found.facts["the run"] or "FLOP" in found.facts["the run"]


def test_memory_that_is_there() -> None:
    assert 2**24 < memory.available(CPU) < 2**50
