"""TensorBoard's files: what the log got, and a continued run's without what came after its checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from toys import Toy, batches, loss_of, settings

from unmask.errors import UserError
from unmask.training.board import check_installed
from unmask.training.loop import train


def _scalars(directory: Path, name: str) -> list[tuple[int, float]]:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_the_board_has_what_the_log_has(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    model = Toy()
    log = train(model, batches(), loss_of(model), settings(), tmp_path, label="toy", tensorboard=True)
    losses = [(line["step"], line["loss"]) for line in log.lines if line["kind"] == "training"]
    assert _scalars(tmp_path, "training/loss") == [(step, pytest.approx(loss)) for step, loss in losses]
    assert len(_scalars(tmp_path, "training/memory_mib")) == len(losses) == 8


def test_steps_that_are_made_again_are_on_it_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    changes = {"checkpoint_every": 4}

    def until(steps: int) -> None:
        torch.manual_seed(0)
        model = Toy()

        def stopping(batch: object, step: int) -> object:
            if step == steps:
                raise RuntimeError("stop")
            return loss_of(model)(batch, step)

        train(model, batches(), stopping, settings(**changes), tmp_path, label="toy", tensorboard=True)

    with pytest.raises(RuntimeError, match="stop"):
        until(6)
    until(8)
    assert [step for step, _ in _scalars(tmp_path, "training/loss")] == list(range(1, 9))


def test_without_it_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match=r"pip install 'unmask\[tensorboard\]'"):
        check_installed()
