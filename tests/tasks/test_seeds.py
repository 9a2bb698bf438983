"""Several seeds: the spread, failed runs, which model is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tuning
from tuning import CPU, FAST

from unmask.errors import UserError
from unmask.tasks import seeds
from unmask.tasks.learning import Outcome
from unmask.tasks.seeds import Spread, finetune_seeds
from unmask.training.runs import MODEL


def outcome(score: float, baseline: float = 0.5) -> Outcome:
    return Outcome("accuracy", score, baseline, 1, 1)


@pytest.mark.parametrize(("keep", "chosen"), [("best", 3), ("median", 2)])
def test_which_seed_is_kept(keep: seeds.Keep, chosen: int) -> None:
    outcomes = {0: outcome(0.5), 1: outcome(0.6), 2: outcome(0.7), 3: outcome(0.9)}
    spread = Spread.of("accuracy", outcomes, keep)
    assert spread.failed == {0: 0.5}, "at the baseline is failed"
    assert spread.scores == {1: 0.6, 2: 0.7, 3: 0.9}
    assert (spread.median, spread.chosen) == (0.7, chosen)


def test_all_failed() -> None:
    with pytest.raises(UserError, match="all 2 runs failed: accuracy is at or under"):
        Spread.of("accuracy", {0: outcome(0.5), 1: outcome(float("nan"))}, "best")


def test_a_failed_run_is_repeated_with_another_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, base = tuning.classification(tmp_path), tuning.electra(tmp_path / "base")
    real = seeds.finetune

    def unlucky(*arguments: object, **options: object) -> Path:
        settings = arguments[3]
        assert isinstance(settings, tuning.FinetuneSettings)
        if settings.seed == 1:
            arguments = (*arguments[:3], replace(settings, learning_rate=1e-9))
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(seeds, "finetune", unlucky)
    settings = replace(FAST, epochs=4)
    run = tmp_path / "run"
    spread = finetune_seeds(task, str(base), run, settings, seeds=2, device=CPU)
    assert list(spread.scores) == [0, 2]
    assert list(spread.failed) == [1]
    kept = (run / f"seed-{spread.chosen}" / "outcome.json").read_text()
    assert str(spread.scores[spread.chosen]) in kept
    assert (run / MODEL / "model.safetensors").is_file()
    assert not list(run.glob("seed-*/model"))
    again = finetune_seeds(task, str(base), run, settings, seeds=2, device=CPU)
    assert again == spread


def test_without_validation_rows(tmp_path: Path) -> None:
    task = tuning.classification(tmp_path, validation=False)
    with pytest.raises(
        UserError, match="several seeds are compared on validation rows, and task 'sorts' has none"
    ):
        finetune_seeds(task, "anything", tmp_path / "run", FAST, seeds=2, device=CPU)
