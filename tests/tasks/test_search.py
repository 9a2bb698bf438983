"""The search over settings: its space, its best trial, and going on in the middle of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tuning
from tuning import CPU, FAST

from unmask import hub
from unmask.errors import UserError
from unmask.tasks.search import Range, default_space, read_space, search
from unmask.tasks.settings import FinetuneSettings
from unmask.training.runs import MODEL

pytest.importorskip("optuna", reason="needs optuna (pip install unmask[search])")


def test_a_space_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(
        "learning_rate = { low = 1e-4, high = 1e-2, log = true }\nbatch_size = { low = 8, high = 32 }\n"
        'optimiser = ["adamw", "adafactor"]\n'
    )
    assert read_space(path) == {
        "learning_rate": Range((), 1e-4, 1e-2, log=True),
        "batch_size": Range((), 8, 32, whole=True),
        "optimiser": Range(("adamw", "adafactor")),
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rat = [1]", "no setting 'learning_rat' to search over; did you mean 'learning_rate'"),
        ("learning_rate = 3", "give a list of values, or { low"),
        ("learning_rate = { low = 2, high = 1 }", "give a list of values, or { low"),
        ("learning_rate = { low = 0, high = 1, log = true }", "low is 0, it must be above 0"),
        ("", "names no setting"),
    ],
)
def test_spaces_that_are_none(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(line)
    with pytest.raises(UserError, match=message):
        read_space(path)


def test_the_default_space() -> None:
    space = default_space(FinetuneSettings().with_defaults("electra", 256, 100), "electra")
    assert (space["learning_rate"].low, space["learning_rate"].high) == (7.5e-5, 1.2e-3)
    assert "layer_decay" in space
    assert "layer_decay" not in default_space(FinetuneSettings().with_defaults("t5", 512, 100), "t5")


def test_stopped_in_a_trial_and_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import unmask.training.loop as loop

    task, base = tuning.classification(tmp_path), tuning.electra(tmp_path / "base")
    settings = replace(FAST, epochs=2)
    space = {"learning_rate": Range((), 1e-6, 3e-2, log=True), "batch_size": Range((8, 16))}

    def found(place: str) -> Any:
        return search(task, str(base), tmp_path / place, settings, trials=2, space=space, device=CPU)

    whole = found("whole")
    real, made = loop._step, list[int]()

    def step(*arguments: Any) -> Any:
        made.append(1)
        if len(made) == 4:
            raise RuntimeError("killed")
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_step", step)
        with pytest.raises(RuntimeError, match="killed"):
            found("part")
    part = found("part")
    assert part == whole
    assert len(part.trials) == 2
    scores = [trial["accuracy"] for trial in part.trials]
    assert scores[part.best] == max(scores)
    best = {name: part.trials[part.best][name] for name in space}
    assert part.settings == replace(settings, **best)
    weights = [(tmp_path / place / MODEL / hub.WEIGHTS).read_bytes() for place in ("whole", "part")]
    assert weights[0] == weights[1]
