"""A checkpoint is written beside the steps: what it holds, who waits for it, and who hears that it failed."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import Toy, batches, loss_of, settings, weights

from unmask.errors import UserError
from unmask.training import checkpoints
from unmask.training.checkpoint_writer import CheckpointWriter
from unmask.training.checkpoints import load_newest, newest_step, read_checkpoint, state_of
from unmask.training.loop import train
from unmask.training.optimisers import make_optimiser


class Stop(Exception):
    pass


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Writing waits until this is set."""
    released, real = threading.Event(), checkpoints._write

    def write(*arguments: Any) -> None:
        assert released.wait(60)
        real(*arguments)

    monkeypatch.setattr(checkpoints, "_write", write)
    return released


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Nothing can be written once this is set."""
    is_full, real = threading.Event(), checkpoints._write

    def write(*arguments: Any) -> None:
        if is_full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(checkpoints, "_write", write)
    return is_full


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_what_is_written_is_the_state_as_it_was(held: threading.Event, tmp_path: Path) -> None:
    model = Toy()
    optimiser = make_optimiser("adamw", model.named_parameters(), learning_rate=0.1, weight_decay=0.1)
    loss_of(model)(batches()[0], 0).total.backward()
    optimiser.step()
    before = {name: tensor.clone() for name, tensor in state_of(model, optimiser).items()}
    with CheckpointWriter(tmp_path, lambda: state_of(model, optimiser), keep=1) as writer:
        writer.save(1)
        optimiser.step()
        assert newest_step(tmp_path) == 0, "it is not written, and training goes on"
        held.set()
    written = read_checkpoint(tmp_path / "step-00000001")
    assert written.keys() == before.keys()
    assert all(torch.equal(written[name], before[name]) for name in before)
    assert not torch.equal(model.one.weight, before["model.layers.0.weight"])


def test_steps_go_on_while_it_is_written(held: threading.Event, tmp_path: Path) -> None:
    model, seen = Toy(), []
    loss = loss_of(model)

    def seeing(batch: Any, step: int, whole: Any = None) -> Any:
        seen.append(newest_step(tmp_path / "checkpoints"))
        if step == 3:
            held.set()
        return loss(batch, step)

    train(model, batches(), seeing, settings(steps=6, checkpoint_every=2), tmp_path, label="")
    assert seen[:4] == [0, 0, 0, 0]
    # The next one waited for it, and the end for the last.
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-00000004",
        "step-00000006",
    ]


def test_no_room_ends_the_run_at_the_next_step(
    full: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = Toy(), []
    writers: list[CheckpointWriter] = []
    enter = CheckpointWriter.__enter__

    def entering(writer: CheckpointWriter) -> CheckpointWriter:
        writers.append(writer)
        return enter(writer)

    monkeypatch.setattr(CheckpointWriter, "__enter__", entering)
    loss = loss_of(model)

    def filling(batch: Any, step: int, whole: Any = None) -> Any:
        seen.append(step)
        if step == 2:
            wait_for(lambda: newest_step(tmp_path / "checkpoints") == 2)
            full.set()
        if step == 4:
            # By the end of this step the failure is known.
            wait_for(lambda: any(writer.has_failed() for writer in writers))
        return loss(batch, step)

    message = r"no room for the checkpoint of step 4 in .* continues from step 2"
    with pytest.raises(UserError, match=message):
        train(model, batches(), filling, settings(steps=50, checkpoint_every=2), tmp_path, label="")
    assert seen == [0, 1, 2, 3, 4]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]


def test_no_room_for_the_last_one(full: threading.Event, tmp_path: Path) -> None:
    full.set()
    model = Toy()
    with pytest.raises(UserError, match=r"no room for the checkpoint of step 8 .* starts again"):
        train(model, batches(), loss_of(model), settings(checkpoint_every=8), tmp_path, label="")


def test_another_error_is_said_first(
    full: threading.Event, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    full.set()
    model = Toy()
    loss = loss_of(model)

    def stopping(batch: Any, step: int, whole: Any = None) -> Any:
        if step == 1:
            raise Stop
        return loss(batch, step)

    with caplog.at_level(logging.WARNING, "unmask"), pytest.raises(Stop):
        train(model, batches(), stopping, settings(), tmp_path, label="")
    assert "no room for the checkpoint of step 1" in caplog.text


def test_a_run_that_fails_leaves_what_was_being_written_whole(held: threading.Event, tmp_path: Path) -> None:
    model, kept = Toy(), []
    loss = loss_of(model)

    def failing(batch: Any, step: int, whole: Any = None) -> Any:
        if step == 1:
            kept.append(weights(model))
            threading.Timer(0.2, held.set).start()
            raise Stop
        return loss(batch, step)

    with pytest.raises(Stop):
        train(model, batches(), failing, settings(), tmp_path, label="")
    model = Toy()
    optimiser = make_optimiser("adamw", model.named_parameters(), learning_rate=0.1, weight_decay=0.1)
    assert load_newest(tmp_path / "checkpoints", model, optimiser) == 1
    assert all(map(torch.equal, weights(model), kept[0]))
