"""A run that is killed, at whatever moment, and started again ends as if nothing had happened."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unmask.training.meter import MEASURED
from unmask.training.metrics import read_metrics

FAMILIES = ("t5", "electra")
LAST = "step-00000012"

Moment = Callable[[Path], bool]


def finished_weights(run: Path) -> dict[str, bytes]:
    """Path below model/ → contents, of all files of weights."""
    model = run / "model"
    return {str(file.relative_to(model)): file.read_bytes() for file in model.rglob("*.safetensors")}


def names(directory: Path) -> list[str]:
    try:
        return [path.name for path in directory.iterdir()]
    except FileNotFoundError:
        return []


def measurements(run: Path) -> list[dict[str, Any]]:
    """The metrics without the rate, which is a matter of the clock."""
    lines = read_metrics(run / "metrics.jsonl")
    return [{key: value for key, value in line.items() if key not in MEASURED} for line in lines]


# --- the moments: what lies on the disk when the process is killed, and still does afterwards ------------


def training_the_tokenizer(run: Path) -> bool:
    return "prepared.json" in names(run) and "tokenizer" not in names(run)


def packing(run: Path) -> bool:
    return "tokenizer" in names(run) and "data" not in names(run)


def between_checkpoints(run: Path) -> bool:
    return "step-00000002" in names(run / "checkpoints") and LAST not in names(run / "checkpoints")


def writing_a_checkpoint(run: Path) -> bool:
    return any(name.startswith(".step-") for name in names(run / "checkpoints"))


def before_the_model_is_written(run: Path) -> bool:
    return LAST in names(run / "checkpoints") and "model" not in names(run)


MOMENTS = [
    training_the_tokenizer,
    packing,
    between_checkpoints,
    writing_a_checkpoint,
    before_the_model_is_written,
]


def kill_at(moment: Moment, start: Callable[[], Any], run: Path) -> None:
    """Kill the run at a moment. One that was missed is tried again from the same state."""
    before = run.with_name("before")
    if run.exists():
        shutil.copytree(run, before)
    for _ in range(8):
        process = start()
        while process.is_running and not moment(run):
            time.sleep(0.0001)
        process.kill(signal.SIGKILL)
        code, _, error = process.wait()
        if code == -signal.SIGKILL and moment(run):
            break
        assert code in (0, -signal.SIGKILL), error
        shutil.rmtree(run)
        if before.exists():
            shutil.copytree(before, run)
    else:
        pytest.fail(f"the moment {moment.__name__} was never hit")
    shutil.rmtree(before, ignore_errors=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_killed_at_any_moment(
    family: str, unmask: Callable[..., Any], corpus: Path, recipes: dict[str, Path], tmp_path: Path
) -> None:
    def command(run: Path) -> list[object]:
        return ["pretrain", recipes[family], "--data", corpus, "--out", run, "--threads", 1]

    whole = unmask(*command(tmp_path / "whole"))
    run = tmp_path / "run"
    for moment in MOMENTS:
        kill_at(moment, lambda: unmask(*command(run)), run)
    code, out, error = unmask(*command(run)).wait()
    assert code == 0, error
    assert out == f"model: {run / 'model'}\n"
    assert whole.wait()[0] == 0

    weights = finished_weights(run)
    assert len(weights) == (1 if family == "t5" else 2)
    assert weights == finished_weights(tmp_path / "whole")
    assert measurements(run) == measurements(tmp_path / "whole")
    left = list(run.rglob(".*"))
    assert not left, "what killed writes left behind is cleared away"


def judged_between_checkpoints(run: Path) -> bool:
    return "best.safetensors" in names(run) and names(run / "checkpoints") == ["step-00000004"]


def before_the_last_evaluation(run: Path) -> bool:
    return "step-00000016" in names(run / "checkpoints") and "outcome.json" not in names(run)


def before_the_tuned_model_is_written(run: Path) -> bool:
    return "outcome.json" in names(run) and "model" not in names(run)


def test_a_fine_tuning_killed_at_any_moment(
    unmask: Callable[..., Any], models: dict[str, Path], tmp_path: Path
) -> None:
    for split, rows in (("train", 80), ("dev", 20)):
        lines = [
            f"{'abak' if row % 3 else 'jgon'} bbak {row},{'good' if row % 3 else 'bad'}"
            for row in range(rows)
        ]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    task = tmp_path / "task.toml"
    task.write_text(
        'name = "reviews"\nkind = "classification"\nsource = "text"\ntarget = "label"\n'
        'train = "train.csv"\nvalidation = "dev.csv"\n'
    )
    # 20 steps.
    flags = [
        "--epochs",
        2,
        "--batch-size",
        8,
        "--evaluate-every",
        3,
        "--checkpoint-every",
        4,
        "--patience",
        0,
    ]
    flags += ["--learning-rate", 1e-2, "--layer-decay", 1, "--precision", "float32", "--threads", 1]

    def start(run: Path) -> Any:
        return unmask("finetune", task, models["electra"], "--out", run, *flags)

    whole = start(tmp_path / "whole")
    run = tmp_path / "run"
    for moment in (
        judged_between_checkpoints,
        before_the_last_evaluation,
        before_the_tuned_model_is_written,
    ):
        kill_at(moment, lambda: start(run), run)
    code, out, error = start(run).wait()
    assert code == 0, error
    assert out == f"model: {run / 'model'}\n"
    assert whole.wait()[0] == 0
    assert finished_weights(run) == finished_weights(tmp_path / "whole")
    assert (run / "outcome.json").read_bytes() == (tmp_path / "whole" / "outcome.json").read_bytes()
    assert measurements(run) == measurements(tmp_path / "whole")
    assert names(run / "checkpoints") == [] and "best.safetensors" not in names(run)
    assert not list(run.rglob(".*"))


@pytest.mark.parametrize(("family", "number"), [("t5", signal.SIGTERM), ("electra", signal.SIGINT)])
def test_stopped_politely(
    family: str,
    number: int,
    unmask: Callable[..., Any],
    corpus: Path,
    recipes: dict[str, Path],
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    # More steps than can be done before the signal, no checkpoint due for long.
    flags = ["--steps", 100_000, "--checkpoint-every", 100_000, "--threads", 1]
    process = unmask("pretrain", recipes[family], "--data", corpus, "--out", run, *flags)
    while process.is_running and "metrics.jsonl" not in names(run):
        time.sleep(0.01)
    while process.is_running and len(read_metrics(run / "metrics.jsonl")) < 3:
        time.sleep(0.01)
    process.kill(number)
    code, out, error = process.wait()
    assert code == 130, error
    assert out == ""
    last = error.strip().splitlines()[-1]
    assert last.startswith(f"pre-training {family}: stopped after step ")
    assert last.endswith(" of 100000, saved: the same command continues from here")
    step = int(last.split("step ")[1].split(" ")[0])
    assert names(run / "checkpoints") == [f"step-{step:08d}"]
    assert not (run / "model").exists()
