"""Several tasks for one T5: rates, prefixes, and a score for each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tuning
from tuning import CPU, FAST

from unmask.errors import UserError
from unmask.tasks.evaluation import HeldOut
from unmask.tasks.learning import Outcome
from unmask.tasks.mixture import TaskMixture, finetune_mixture, is_mixture, load_mixture
from unmask.tasks.models import load_for_prediction
from unmask.training.metrics import read_metrics


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    echo = tuning.echoes(tmp_path, prefix="echo: ")
    sorts = replace(tuning.classification(tmp_path), prefix="sort: ")
    for task in (echo, sorts):
        tuning.toml_of(task, tmp_path / f"{task.name}.toml")
    path = tmp_path / "mixture.toml"
    path.write_text('name = "both"\ntemperature = 2\n[tasks]\necho = "echo.toml"\nsorts = "sorts.toml"\n')
    return path


def test_a_mixture_from_a_file(mixture: Path) -> None:
    assert is_mixture(str(mixture))
    assert not is_mixture(str(mixture.with_name("echo.toml")))
    found = load_mixture(mixture)
    assert (found.name, list(found.tasks), found.temperature) == ("both", ["echo", "sorts"], 2.0)
    rates = found.rates_of({"echo": 400, "sorts": 100})
    assert rates["echo"] / rates["sorts"] == pytest.approx(2.0)
    capped = replace(found, temperature=1.0, cap=200).rates_of({"echo": 400, "sorts": 100})
    assert capped["echo"] / capped["sorts"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ('a = "echo.toml"', "must name two tasks or more"),
        ('a = "echo.toml"\nb = { task = "sorts.toml", rate = 2 }', "a has no rate"),
        ('a = 3\nb = "sorts.toml"', "a is 3, it must be a task"),
        ('a = "nothing.toml"\nb = "sorts.toml"', "no task file"),
    ],
)
def test_mixtures_that_are_none(tasks: str, message: str, mixture: Path) -> None:
    mixture.write_text(f"[tasks]\n{tasks}\n")
    with pytest.raises(UserError, match=message):
        load_mixture(mixture)


def test_one_model_learns_both(mixture: Path, tmp_path: Path) -> None:
    base = tuning.t5(tmp_path / "base")
    settings = replace(FAST, epochs=3)
    both = load_mixture(mixture)
    model = finetune_mixture(both, str(base), tmp_path / "run", settings, device=CPU)
    outcome = Outcome.read(tmp_path / "run")
    last = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "evaluation"]
    line = next(line for line in last if line["step"] == outcome.step)
    assert outcome.score == pytest.approx((line["echo/bleu"] / 100 + line["sorts/accuracy"]) / 2)
    for name, task in both.tasks.items():
        found = HeldOut.read(task, "validation").model(load_for_prediction(task, model, device=CPU))
        assert found.scores[task.metrics[0]] == pytest.approx(line[f"{name}/{task.metrics[0]}"])


def test_tasks_that_cannot_be_told_apart(tmp_path: Path) -> None:
    tasks = {"a": tuning.echoes(tmp_path / "a", "a"), "b": tuning.echoes(tmp_path / "b", "b")}
    base = tuning.t5(tmp_path / "base")
    with pytest.raises(UserError, match="the tasks a and b read their rows in the same form"):
        finetune_mixture(TaskMixture("both", tasks), str(base), tmp_path / "run", FAST, device=CPU)


def test_an_electra_has_one_head(mixture: Path, tmp_path: Path) -> None:
    base = tuning.electra(tmp_path / "base")
    with pytest.raises(UserError, match="a mixture needs a T5"):
        finetune_mixture(load_mixture(mixture), str(base), tmp_path / "run", FAST, device=CPU)
