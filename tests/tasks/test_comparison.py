"""`unmask compare` on a toy recipe: equal compute, the same fine-tuning, resumption, the report's numbers."""

from __future__ import annotations

import json
import random
import statistics
from pathlib import Path
from typing import Any

import pytest
import scipy.stats

from unmask.cli import _run
from unmask.data.shards import Shards
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.tasks import comparison
from unmask.tasks.comparison import equal_compute, mean_difference
from unmask.tasks.comparison_settings import ComparisonSettings
from unmask.training.electra import step_flops, training_batches
from unmask.training.metrics import read_metrics

RECIPE = """
name = "A toy comparison"
data = ["corpus.jsonl"]
seeds = 2

[pretraining]
family = "electra"
vocab_size = 150
layers = 1
width = 16
heads = 2
feed_forward_width = 32
length = 24
batch_size = 4
validation_share = 0.1
steps = 20
warmup_steps = 5
learning_rate = 1e-3
precision = "float32"
log_every = 2

[systems.ELECTRA]
generator_share = 0.5

[systems."masked LM"]
objective = "masked-lm"
learning_rate = 2e-3

[finetuning]
batch_size = 8

[tasks.toy]
file = "task.toml"
epochs = 1.0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, its corpus and its task."""
    draw = random.Random(0)
    words = [first + second for first in "abcdefghij" for second in ("bak", "del", "fim", "gon")]
    path = tmp_path_factory.mktemp("comparison")
    with (path / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(60):
            lines = [" ".join(draw.choices(words, k=9)) for _ in range(4)]
            file.write(json.dumps({"text": "\n".join(lines)}) + "\n")
    rows = [" ".join(draw.choices(words, k=5)) for _ in range(60)]
    table = "text,label\n" + "".join(f"{row},{'ab'['abak' in row]}\n" for row in rows)
    (path / "rows.csv").write_text(table)
    (path / "task.toml").write_text(
        'name = "toy"\nkind = "classification"\nsource = "text"\ntarget = "label"\n'
        'train = "rows.csv"\nvalidation = "rows.csv"\n'
    )
    (path / "compare.toml").write_text(RECIPE)
    return path


def command(folder: Path, *flags: object) -> int:
    arguments = ["compare", folder / "compare.toml", "--out", folder / "out", "--threads", 1, *flags]
    return _run([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def out(folder: Path) -> Path:
    assert command(folder) == 0
    return folder / "out"


def test_equal_compute(folder: Path, out: Path) -> None:
    settings = ComparisonSettings.load(folder / "compare.toml")
    tokenizer = ElectraTokenizer.from_pretrained(out / "tokenizer")
    shards = Shards.open(out / "data", tokenizer)
    plans = equal_compute(settings, shards, tokenizer)
    (electra, first), (masked, second) = plans["ELECTRA"], plans["masked LM"]
    assert electra.steps == first.steps == 20
    assert masked.steps == second.steps > 20
    assert (masked.learning_rate, electra.learning_rate) == (2e-3, 1e-3)
    assert masked.warmup_steps == round(5 * masked.steps / 20)
    # What the runs' own batches cost, one by one.
    totals = []
    for recipe, cost in plans.values():
        batches, flops_of = training_batches(recipe, shards, tokenizer), step_flops(recipe, tokenizer)
        total = sum(flops_of(batches[step]) for step in range(recipe.steps))
        assert total == pytest.approx(cost.flops, rel=0.03)
        totals.append(total)
    step = totals[1] / masked.steps
    assert totals[1] == pytest.approx(totals[0], abs=0.5 * step + 0.03 * totals[0])
    for name, recipe in (("electra", electra), ("masked-lm", masked)):
        log = read_metrics(out / "systems" / name / "metrics.jsonl")
        assert log[-1]["step"] == recipe.steps


def test_the_report(out: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = json.loads((out / "comparison.json").read_text())
    assert list(numbers["pretraining"]) == ["ELECTRA", "masked LM"]
    toy = numbers["tasks"]["toy"]
    assert set(toy["systems"]) == {"ELECTRA", "masked LM", "no pre-training"}
    for system in toy["systems"].values():
        assert len(system["scores"]) == 2
        assert system["mean"] == pytest.approx(statistics.fmean(system["scores"]))
    assert set(toy["baselines"]) == {"majority class", "TF-IDF nearest neighbour"}
    assert set(toy["first_minus"]) == {"masked LM", "no pre-training"}
    page = (out / "report.html").read_text()
    for text in ("A toy comparison", "masked LM", "no pre-training", "GFLOP/s", "Welch"):
        assert text in page
    assert command(folder) == 0
    printed = capsys.readouterr().out
    assert "toy: 2 fine-tunings each" in printed
    assert "Differences of the means" in printed


def test_a_stopped_comparison_goes_on(
    folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((out / "comparison.json").read_text())
    lost = out / "tasks" / "toy" / "masked-lm" / "seed-1"
    (lost / "result.json").unlink()
    done: list[Path] = []
    real = comparison.finetune

    def counted(*arguments: Any, **options: Any) -> Path:
        done.append(arguments[2])
        return real(*arguments, **options)

    monkeypatch.setattr(comparison, "finetune", counted)
    assert command(folder) == 0
    assert done == [lost], "only what was lost is done again"
    assert json.loads((out / "comparison.json").read_text())["tasks"] == before["tasks"]
    assert not list(out.rglob("tasks/*/*/*/model")), "fine-tuned weights are not kept"

    done.clear()
    assert command(folder, "--seeds", 3) == 0
    assert [path.name for path in done] == ["seed-2"] * 3, "seeds can be added"
    capsys.readouterr()
    assert command(folder, "--steps", 21) == 2
    assert "holds a run with other settings (steps 20, now 21)" in capsys.readouterr().err


def test_mean_difference() -> None:
    first, second = [0.8, 0.82, 0.81, 0.85], [0.7, 0.75, 0.71]
    found = mean_difference(first, second)
    assert found.value == pytest.approx(0.82 - 0.72)
    wanted = scipy.stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.is_clear
    assert not mean_difference([0.7, 0.8], [0.75, 0.76]).is_clear
    same = mean_difference([0.7, 0.7], [0.6, 0.6])
    assert (same.low, same.high) == (same.value, same.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = 2", "seeds = 1", "seeds is 1: give at least 2"),
        ("seeds = 2", "seed = 2", r"unknown key 'seed'; did you mean 'seeds'\?"),
        ('data = ["corpus.jsonl"]', "", "the key 'data' is missing"),
        ('[systems."masked LM"]', '[systems."Electra"]', "too alike: ELECTRA, Electra"),
        ('[systems."masked LM"]', '[systems."No pre-training"]', "too alike"),
        ("[systems.ELECTRA]\ngenerator_share = 0.5", "", "nothing to compare"),
        (
            "learning_rate = 2e-3",
            "width = 32",
            r"systems.masked LM changes width, which the systems have in common",
        ),
        ("learning_rate = 2e-3", "steps = 9", "sets steps, which follows from equal compute"),
        ("learning_rate = 2e-3", "temperature = 2.0", "temperature means nothing to the objective"),
        ("epochs = 1.0", "epoch = 1.0", r"tasks.toy: unknown key 'epoch'; did you mean 'epochs'\?"),
        ('file = "task.toml"', "", "tasks.toy: the key 'file' is missing"),
        ("layers = 1", "layers = 0", "pretraining: layers is 0"),
    ],
)
def test_a_recipe_with_a_mistake(old: str, new: str, message: str, folder: Path, tmp_path: Path) -> None:
    assert old in RECIPE
    path = tmp_path / "compare.toml"
    path.write_text(RECIPE.replace(old, new))
    for name in ("task.toml", "rows.csv"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(UserError, match=message):
        ComparisonSettings.load(path)


def test_the_committed_recipe_can_be_read(shared_data: Path) -> None:
    del shared_data
    path = Path(__file__).resolve().parents[2] / "recipes" / "electra-against-mlm" / "compare.toml"
    settings = ComparisonSettings.load(path)
    assert list(settings.systems) == ["ELECTRA", "masked LM"]
    assert all(Path(file).is_file() for file in settings.data)
    for compared in settings.tasks:
        assert compared.task.file("train").is_file()
