"""The loop: the same weights wherever it was stopped, and what it writes on the way."""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import signal
from collections.abc import Container
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._python_dispatch import TorchDispatchMode
from toys import Toy, batches, loss_of, settings, weights

from unmask.errors import UserError
from unmask.training import optimisers
from unmask.training.checkpoints import read_checkpoint
from unmask.training.loop import train
from unmask.training.meter import MEASURED
from unmask.training.metrics import read_metrics
from unmask.training.settings import LoopSettings, OptimiserName
from unmask.training.stopping import Interrupted


class Stop(Exception):
    pass


def without_rate(directory: Path) -> list[dict[str, Any]]:
    lines = read_metrics(directory / "metrics.jsonl")
    return [{key: value for key, value in line.items() if key not in MEASURED} for line in lines]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimiser", get_args(OptimiserName))
def test_stopped_after_every_step(optimiser: str, precision: str, tmp_path: Path) -> None:
    averaged = {"ema_decay": 0.9} if precision == "float32" else {}
    chosen = settings(optimiser=optimiser, precision=precision, warmup_steps=3, evaluate_every=3, **averaged)

    def run(directory: Path, stop_at: int | None) -> Toy:
        model = Toy()
        loss = loss_of(model)

        def stopping(batch: Any, step: int, whole: Any = None) -> Any:
            if step == stop_at:
                raise Stop
            return loss(batch, step)

        def evaluate() -> dict[str, float]:
            return {"loss": float(model.one.weight.sum())}

        train(model, batches(), stopping, chosen, directory, label="toy", evaluate=evaluate)
        return model

    whole = run(tmp_path / "whole", None)
    assert not torch.equal(whole.one.weight, Toy().one.weight)
    for step in range(1, chosen.steps):
        with pytest.raises(Stop):
            run(tmp_path / "pieces", step)
    pieces = run(tmp_path / "pieces", None)
    assert all(map(torch.equal, weights(whole), weights(pieces)))
    assert without_rate(tmp_path / "whole") == without_rate(tmp_path / "pieces")
    # After the last step: nothing is left to do, nothing changes.
    assert all(map(torch.equal, weights(whole), weights(run(tmp_path / "pieces", 0))))


def test_lines_after_the_checkpoint_are_written_again(tmp_path: Path) -> None:
    chosen = settings(checkpoint_every=4)
    model = Toy()
    train(model, batches(), loss_of(model), settings(steps=4, checkpoint_every=4), tmp_path, label="")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "kind": "training", "loss": 99.0}\n{"step": 6, "ki')
    model = Toy()
    train(model, batches(), loss_of(model), chosen, tmp_path, label="")
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert all(line["loss"] < 99 for line in lines)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 8


def test_cadence(tmp_path: Path) -> None:
    model, modes = Toy(), []

    def evaluate() -> dict[str, float]:
        modes.append((model.training, torch.is_inference_mode_enabled()))
        return {"loss": 1.0}

    chosen = settings(steps=10, evaluate_every=4, log_every=3, checkpoint_every=5, keep_checkpoints=3)
    train(model, batches(), loss_of(model), chosen, tmp_path, label="toy", evaluate=evaluate)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    steps = {
        kind: [line["step"] for line in lines if line["kind"] == kind] for kind in ("training", "evaluation")
    }
    assert steps == {"training": [3, 6, 9, 10], "evaluation": [0, 4, 8, 10]}
    assert modes == [(False, True)] * 4
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-00000005",
        "step-00000010",
    ]
    assert not model.training


def failing_at(steps: Container[int], value: float, model: Toy) -> Any:
    """A loss whose batch has a number that is not finite at some steps (counted from 0)."""
    loss = loss_of(model)

    def failing(batch: Any, step: int, whole: Any = None) -> Any:
        return loss({"values": batch["values"] * (value if step in steps else 1.0)}, step)

    return failing


@pytest.fixture
def as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host's tensors stand for a device's: Adafactor and Muon undo a step there, which they leave out on a host."""
    monkeypatch.setattr(optimisers, "_on_host", lambda tensor: False)


@pytest.fixture(params=["host", "device"])
def skipping(request: pytest.FixtureRequest) -> None:
    if request.param == "device":
        request.getfixturevalue("as_on_a_device")


@pytest.mark.usefixtures("skipping")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("optimiser", get_args(OptimiserName))
def test_a_step_that_is_not_finite_is_skipped(optimiser: str, value: float, tmp_path: Path) -> None:
    """Weights, moments and average stay as they are, as if that step had been left out."""
    changes: dict[str, Any] = {"optimiser": optimiser, "schedule": "constant", "ema_decay": 0.5}
    model = Toy()
    train(model, batches(), failing_at({4}, value, model), settings(**changes, steps=5), tmp_path, label="")
    other = Toy()
    train(other, batches(), loss_of(other), settings(**changes, steps=4), tmp_path / "4", label="")
    assert all(map(torch.equal, weights(model), weights(other)))
    before, after = (
        read_checkpoint(directory / "checkpoints" / f"step-0000000{step}")
        for directory, step in ((tmp_path / "4", 4), (tmp_path, 5))
    )
    assert all(torch.equal(before[name], after[name]) for name in before | after)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [(line["step"], line["kind"]) for line in lines] == [
        *((step, "training") for step in (1, 2, 3, 4)),
        (5, "skipped"),
    ]
    # Where a number that is not finite comes in with the batch, the first layer is the first to show it.
    expected = "the output of layers.0" if math.isnan(value) else "the output of layers"
    assert lines[-1]["message"].startswith(expected)


def test_skipped_steps_in_a_row_stop_a_run_also_over_restarts(tmp_path: Path) -> None:
    chosen = settings(steps=12, max_skipped=4, checkpoint_every=2)
    # 1 alone, 3 and 4 in a row, then 6 to 9.
    failing = {1, 3, 4, 6, 7, 8, 9, 10}
    message = (
        r"toy: stopped at step 10, 4 steps in a row had no finite loss and gradient "
        r"\(the output of layers.0\); the last checkpoint is of step 8: lower learning_rate"
    )
    whole, model = tmp_path / "whole", Toy()
    with pytest.raises(UserError, match=message):
        train(model, batches(), failing_at(failing, math.nan, model), chosen, whole, label="toy")
    counts = [line["in_a_row"] for line in read_metrics(whole / "metrics.jsonl") if line["kind"] == "skipped"]
    assert counts == [1, 1, 2, 1, 2, 3, 4]

    pieces, model = tmp_path / "pieces", Toy()
    loss = failing_at(failing, math.nan, model)

    def stopping(batch: Any, step: int, whole: Any = None) -> Any:
        if step == 8:
            raise Stop
        return loss(batch, step)

    with pytest.raises(Stop):
        train(model, batches(), stopping, chosen, pieces, label="toy")
    model = Toy()
    with pytest.raises(UserError, match=message):
        train(model, batches(), failing_at(failing, math.nan, model), chosen, pieces, label="toy")
    assert without_rate(whole) == without_rate(pieces)


@pytest.mark.usefixtures("skipping")
@pytest.mark.parametrize("optimiser", get_args(OptimiserName))
def test_a_skip_that_is_learnt_of_late_has_the_same_outcome(optimiser: str, tmp_path: Path) -> None:
    """The first step, one alone, two in a row: learnt of at once where a line is due, else in the step behind."""
    states, skips = [], []
    for every in (1, 100):
        model, directory = Toy(), tmp_path / str(every)
        chosen = settings(optimiser=optimiser, ema_decay=0.5, log_every=every, checkpoint_every=100, steps=9)
        failing = failing_at({0, 3, 5, 6}, math.nan, model)
        train(model, batches(), failing, chosen, directory, label="")
        states.append(read_checkpoint(directory / "checkpoints" / "step-00000009"))
        lines = read_metrics(directory / "metrics.jsonl")
        skips.append([line for line in lines if line["kind"] == "skipped"])
    assert [line["step"] for line in skips[0]] == [1, 4, 6, 7]
    assert skips[0] == skips[1]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_skipped_steps_stop_a_run_that_learns_of_them_late(tmp_path: Path) -> None:
    model, seen = Toy(), list[int]()
    chosen = settings(steps=50, max_skipped=3, log_every=100, checkpoint_every=4)
    failing = failing_at(range(4, 50), math.nan, model)

    def seeing(batch: Any, step: int, whole: Any = None) -> Any:
        seen.append(step)
        return failing(batch, step)

    with pytest.raises(UserError, match=r"stopped at step 7, 3 steps in a row .* is of step 4"):
        train(model, batches(), seeing, chosen, tmp_path, label="toy")
    assert max(seen) == 7, "the step behind was under way"


class Reads(TorchDispatchMode):
    """Notes an R where the host reads a number from a tensor, and so waits for its device."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self.events = events

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten._local_scalar_dense.default:
            self.events.append("R")
        return function(*args, **(kwargs or {}))


def events_of(model: torch.nn.Module, loss: Any, batches: Any, chosen: LoopSettings, directory: Path) -> str:
    """What happens in a run, a letter each: a loss is made, a number is read, an optimiser has made its step."""
    events: list[str] = []

    def noted(*arguments: Any) -> Any:
        events.append("L")
        return loss(*arguments)

    hook = register_optimizer_step_post_hook(lambda *_: events.append("S"))
    try:
        with Reads(events):
            train(model, batches, noted, chosen, directory, label="")
    finally:
        hook.remove()
    return "".join(events)


@pytest.mark.usefixtures("as_on_a_device")
@pytest.mark.parametrize("optimiser", get_args(OptimiserName))
def test_the_host_waits_for_the_step_before_alone(optimiser: str, tmp_path: Path) -> None:
    """Once a step, when this one's passes are given to the device: whether the one before counts.

    That the models' own passes read nothing shows where there is nothing to read (`test_recipes.py`).
    """
    chosen = settings(optimiser=optimiser, ema_decay=0.5, steps=6, log_every=100, checkpoint_every=100)
    model = Toy()
    events = events_of(model, loss_of(model), batches(), chosen, tmp_path)
    # At the end it is read whether the last one counts, and what is logged. Muon is two optimisers in a third.
    assert re.fullmatch("LS+(LRS+){5}R+", events), events


def test_evaluated_and_left_is_the_average(tmp_path: Path) -> None:
    chosen = settings(steps=6, ema_decay=0.9, evaluate_every=2)
    model, evaluated, trained = Toy(), [], []
    loss = loss_of(model)

    def seeing(batch: Any, step: int, whole: Any = None) -> Any:
        trained.append(weights(model))
        return loss(batch, step)

    def evaluate() -> dict[str, float]:
        evaluated.append(weights(model))
        return {"loss": 1.0}

    train(model, batches(), seeing, chosen, tmp_path, label="", evaluate=evaluate)
    plain = Toy()
    train(plain, batches(), loss_of(plain), settings(steps=6), tmp_path / "plain", label="")
    trained.append(weights(plain))
    expected = [trained[0]]
    for step in range(6):
        decay = min(0.9, (1 + step) / (10 + step))
        values = zip(expected[-1], trained[step + 1], strict=True)
        expected.append([decay * old + (1 - decay) * new for old, new in values])
    for step, seen in zip((0, 2, 4, 6), evaluated, strict=True):
        for one, other in zip(seen, expected[step], strict=True):
            torch.testing.assert_close(one, other)
    assert all(map(torch.equal, weights(model), evaluated[-1]))
    assert not torch.equal(model.one.weight, plain.one.weight)


def test_a_run_that_ends_with_the_mean_of_its_newest_checkpoints(tmp_path: Path) -> None:
    model, seen = Toy(), []
    loss = loss_of(model)

    def seeing(batch: Any, step: int, whole: Any = None) -> Any:
        seen.append(weights(model))
        return loss(batch, step)

    chosen = settings(steps=6, keep_checkpoints=3, average_checkpoints=3)
    log = train(model, batches(), seeing, chosen, tmp_path, label="", evaluate=lambda: {"loss": 1.0})
    plain = Toy()
    train(plain, batches(), loss_of(plain), settings(steps=6), tmp_path / "plain", label="")
    newest = [*seen[4:], weights(plain)]
    for mean, parts in zip(weights(model), zip(*newest, strict=True), strict=True):
        torch.testing.assert_close(mean, sum(parts) / 3)
    assert not torch.equal(model.one.weight, plain.one.weight)
    assert model.one.weight is model.two.weight
    assert log.lines[-1] == {"step": 6, "kind": "averaged", "loss": 1.0}


def test_layer_decay_reaches_the_optimiser(tmp_path: Path) -> None:
    def moved(decay: float) -> list[float]:
        model = Toy()
        chosen = settings(steps=1, optimiser="electra-adam", weight_decay=0.0, layer_decay=decay)
        train(model, batches(), loss_of(model), chosen, tmp_path / str(decay), label="")
        return [
            float((layer.bias - start.bias).detach().abs().mean())
            for layer, start in zip(model.layers, Toy().layers, strict=True)
        ]

    # Adam's first step does not depend on the gradient's size, only on the rate.
    one, decayed = moved(1.0), moved(0.5)
    assert [value / whole for value, whole in zip(decayed, one, strict=True)] == pytest.approx(
        [0.25, 0.5], rel=1e-2
    )


def test_gradients_are_clipped(tmp_path: Path) -> None:
    norms = []
    for clip in (0.0, 1e-3):
        model = Toy()
        chosen = settings(steps=1, clip_norm=clip, checkpoint_every=0)
        train(model, batches(), loss_of(model), chosen, tmp_path / str(clip), label="toy")
        gradients = torch.cat([tensor.grad.flatten() for tensor in model.parameters()])
        norms.append(float(gradients.norm()))
    assert norms[0] > 1e-2
    assert norms[1] == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(("every", "ending"), [(100, "continues from here"), (0, "starts again")])
def test_a_signal_stops_between_two_steps(every: int, ending: str, tmp_path: Path) -> None:
    model = Toy()
    loss = loss_of(model)
    before = signal.getsignal(signal.SIGTERM)

    def signalling(batch: Any, step: int, whole: Any = None) -> Any:
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(batch, step)

    chosen = settings(checkpoint_every=every)
    with pytest.raises(Interrupted, match=rf"toy: stopped after step 3 of 8, .*{ending}"):
        train(model, batches(), signalling, chosen, tmp_path, label="toy")
    assert (tmp_path / "checkpoints" / "step-00000003").is_dir() == bool(every)
    assert signal.getsignal(signal.SIGTERM) is before


def test_batches_from_another_process_are_the_same(tmp_path: Path) -> None:
    readers, states = [], []
    for workers in (0, 1):
        model = Toy()
        loss = loss_of(model)

        def counting(batch: Any, step: int, whole: Any = None, loss: Any = loss) -> Any:
            readers.append(len(multiprocessing.active_children()))
            if step == 4:
                raise Stop
            return loss(batch, step)

        with pytest.raises(Stop):
            train(
                model,
                batches(),
                counting,
                settings(),
                tmp_path / str(workers),
                label="",
                data_workers=workers,
            )
        states.append(weights(model))
    assert readers == [0] * 5 + [1] * 5
    assert not multiprocessing.active_children(), "a run that fails leaves no process behind"
    assert all(map(torch.equal, *states))
