"""From a table to an evaluated classifier on the command line, and what is said of tables that will not do."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from published import PUBLISHED

from unmask.cli import _run

ROOT = Path(__file__).parents[2]


def reviews(path: Path, rows: int = 200) -> Path:
    """Texts whose label is in their first word."""
    draw = random.Random(0)
    words = [first + second for first in "abcdefghij" for second in ("bak", "del", "fim", "gon")]
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["review", "sentiment"])
        for number in range(rows):
            text = " ".join(draw.choice(words) for _ in range(4))
            out.writerow(
                [f"{'abak' if number % 2 else 'jgon'} {text} {number}", "good" if number % 2 else "bad"]
            )
    return path


@pytest.mark.parametrize("family", ["electra", "t5"])
def test_three_commands_make_a_classifier(
    family: str,
    tmp_path: Path,
    models: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reviews(tmp_path / "reviews.csv")
    monkeypatch.chdir(tmp_path)
    model = str(models[family])
    # The README's three commands, with more epochs for a model that knows nothing.
    readme = (ROOT / "README.md").read_text()
    pattern = r"^unmask (task new reviews\.csv|finetune reviews/\S+ .*|evaluate reviews/\S+ .*)$"
    shown = re.findall(pattern, readme, re.M)
    assert [line.split()[0] for line in shown] == ["task", "finetune", "evaluate"]
    for line in shown:
        words = line.replace("google/electra-small-discriminator", model).split()
        more = ["--epochs", "25", "--learning-rate", "1e-2", "--optimiser", "adamw", "--patience", "0"]
        more = more if words[0] == "finetune" else []
        assert _run([*words, *more]) == 0, capsys.readouterr()
    printed = capsys.readouterr().out
    assert "classification of sentiment by review" in printed and "majority class" in printed
    report = (tmp_path / "report.html").read_text()
    assert "Confusion" in report and "Worst answers" in report
    assert _run(["evaluate", "reviews/task.toml", "runs/reviews/model", "--out", "scores.json"]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert scores["this model"]["accuracy"]["score"] > scores["majority class"]["accuracy"]["score"] + 0.2


def test_what_is_wrong_with_a_table_is_said_in_one_line(
    tmp_path: Path, models: dict[str, Path], refused: Callable[..., str]
) -> None:
    def of(text: bytes, *options: str) -> str:
        (tmp_path / "rows.csv").write_bytes(text)
        return refused("task", "new", tmp_path / "rows.csv", *options)

    assert "rows.csv is empty" in of(b"")
    assert "has no column 'label': there are 'text', 'class'" in of(b"text,class\na,b\n", "--target", "label")
    assert "line 3: byte 0xe9 is not UTF-8; save the file as UTF-8" in of(
        "text,label\na,x\ncafé,y\n".encode("latin-1")
    )


def finished(tmp_path: Path, models: dict[str, Path]) -> tuple[Path, Path]:
    reviews(tmp_path / "reviews.csv", 60)
    assert _run(["task", "new", str(tmp_path / "reviews.csv")]) == 0
    task = tmp_path / "reviews" / "task.toml"
    arguments = ["finetune", task, models["electra"], "--out", tmp_path / "run", "--epochs", "1"]
    assert _run(list(map(str, arguments))) == 0
    return task, tmp_path / "run" / "model"


def test_a_label_that_training_lacks_is_said_before_and_after(
    tmp_path: Path, models: dict[str, Path], refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    task, model = finished(tmp_path, models)
    with (task.parent / "test.csv").open("a") as file:
        file.write("abak,wonderful\n")
    line = refused("evaluate", task, model)
    assert re.search(
        r"test\.csv, row \d+: no training row has the label 'wonderful' \(known are 'bad', 'good'\)", line
    )
    assert _run(["check", str(task)]) == 0
    assert "test: no other split has the label 'wonderful': it cannot be learnt" in capsys.readouterr().out


def test_a_model_that_has_not_learnt_the_task_is_refused(
    tmp_path: Path, models: dict[str, Path], refused: Callable[..., str]
) -> None:
    task, model = finished(tmp_path, models)
    untrained = models["electra"]
    for command in (
        ("evaluate", task, untrained),
        ("evaluate", task, model, "--against", untrained),
        ("predict", task, untrained, tmp_path / "reviews.csv"),
    ):
        line = refused(*command)
        assert (
            "has no head for classification (it is ElectraForPreTraining): fine-tune it on task 'reviews'"
            in line
        )
    config = model / "config.json"
    config.write_text(config.read_text().replace('"good"', '"LABEL_1"').replace('"bad"', '"LABEL_0"'))
    assert "answers with 'LABEL_0', 'LABEL_1', and task 'reviews' has 'bad', 'good'" in refused(
        "evaluate", task, model
    )
    assert "reviews.csv is a table: make a task of it first (unmask task new" in refused(
        "finetune", tmp_path / "reviews.csv", untrained, "--out", tmp_path / "other"
    )


def test_rows_are_predicted_in_order_and_continued(
    tmp_path: Path, models: dict[str, Path], refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    task, model = finished(tmp_path, models)
    inputs = reviews(tmp_path / "new.csv", 50)
    out = tmp_path / "out.jsonl"
    command = ["predict", task, model, inputs, "--out", out, "--window", 8]
    assert _run(list(map(str, command))) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    with inputs.open(newline="") as file:
        assert [line["review"] for line in lines] == [row["review"] for row in csv.DictReader(file)]
    assert {line["prediction"] for line in lines} <= {"good", "bad"}
    assert all(0.5 <= line["confidence"] <= 1 for line in lines)
    # A job that was killed behind its second window goes on to the same bytes.
    whole = out.read_bytes()
    out.unlink()
    from unmask.tasks.inputs import LinePredictor

    calls, answer = [], LinePredictor.__call__

    def stop(self: LinePredictor, texts: list[str], first: int) -> list[str]:
        calls.append(first)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return answer(self, texts, first)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LinePredictor, "__call__", stop)
        assert _run(list(map(str, command))) == 130
    assert not out.exists() and calls == [0, 8, 16]
    assert _run(list(map(str, command))) == 0
    assert out.read_bytes() == whole
    # Lines, to standard output.
    (tmp_path / "lines.txt").write_text("abak bbak\njgon\n")
    capsys.readouterr()
    assert _run(["predict", str(task), str(model), str(tmp_path / "lines.txt")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    (tmp_path / "other.csv").write_text("text\nabak\n")
    assert "has no column 'review': there are 'text'" in refused(
        "predict", task, model, tmp_path / "other.csv"
    )
    (tmp_path / "gap.jsonl").write_text('{"review": "abak"}\n{"review": null}\n')
    assert "row 2: the column 'review' has no value" in refused(
        "predict", task, model, tmp_path / "gap.jsonl"
    )
    # Before any row is answered.
    (tmp_path / "late.csv").write_text("review\n" + "abak\n" * 20 + '""\n')
    assert "late.csv, row 21: the column 'review'" in refused(
        "predict", task, model, tmp_path / "late.csv", "--window", 8, "--out", tmp_path / "late.jsonl"
    )
    assert not list(tmp_path.glob("late.jsonl*"))
    assert "a file ends in .txt or .jsonl" in refused(
        "predict", task, model, inputs, "--out", tmp_path / "a.csv"
    )


def test_two_models_are_compared(
    tmp_path: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    task, model = finished(tmp_path, models)
    places = {name: str(tmp_path / name) for name in ("scores.json", "report.html", "predictions.jsonl")}
    flags = [
        "--out",
        places["scores.json"],
        "--report",
        places["report.html"],
        "--predictions",
        places["predictions.jsonl"],
    ]
    assert _run(["evaluate", str(task), str(model), "--against", str(model), *flags]) == 0
    assert "this model minus the other model" in " ".join(capsys.readouterr().out.split())
    found = json.loads(Path(places["scores.json"]).read_text())
    assert found["differences"]["accuracy"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    lines = [json.loads(line) for line in Path(places["predictions.jsonl"]).read_text().splitlines()]
    assert [line["prediction"] for line in lines] == found["predictions"]
    assert _run(["evaluate", str(task), str(model), "--out", str(tmp_path / "absent" / "scores.json")]) == 2


def test_minimal_pairs_are_scored_by_phenomenon(
    tmp_path: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "blimp"
    place.mkdir()
    PUBLISHED["blimp"](place)
    scores = tmp_path / "scores.json"
    command = ["evaluate", "blimp", models["electra"], "--data", place, "--out", scores]
    assert _run(list(map(str, command))) == 0
    printed = capsys.readouterr().out
    assert "the shorter one" in printed and "By field" in printed and "argument_structure" in printed
    found = json.loads(scores.read_text())["slices"]
    assert found["field"]["this model"]["syntax"]["rows"] == 4
    assert list(found["linguistics_term"]["this model"]) == ["argument_structure"]


def tuned(*arguments: object, epochs: int = 2) -> list[str]:
    """A command of few steps."""
    fast = ["--epochs", epochs, "--batch-size", 16, "--learning-rate", 1e-2, "--layer-decay", 1]
    return list(map(str, [*arguments, *fast, "--patience", 0, "--threads", 1]))


def test_several_seeds_and_a_search(
    tmp_path: Path, models: dict[str, Path], refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    reviews(tmp_path / "reviews.csv", 120)
    assert _run(["task", "new", str(tmp_path / "reviews.csv")]) == 0
    task, run = tmp_path / "reviews" / "task.toml", tmp_path / "run"
    space = tmp_path / "space.toml"
    space.write_text("learning_rate = { low = 5e-3, high = 2e-2, log = true }\n")
    command = tuned("finetune", task, models["electra"], "--out", run, "--seeds", 2, epochs=15)
    command += ["--search", "2", "--search-space", str(space)]
    capsys.readouterr()
    assert _run(command) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == f"model: {run / 'model'}"
    assert "median" in printed and "Trials" in printed
    assert len(list((run / "search").glob("trial-*"))) == 2 and (run / "seed-1" / "outcome.json").is_file()
    weights = (run / "model" / "model.safetensors").read_bytes()
    # The same command finds everything done.
    assert _run(command) == 0
    assert (run / "model" / "model.safetensors").read_bytes() == weights
    assert "--search-space needs --search" in refused(
        "finetune", task, models["electra"], "--out", tmp_path / "x", "--search-space", space
    )
    assert "--seeds 0: it must be at least 1" in refused(
        "finetune", task, models["electra"], "--out", tmp_path / "x", "--seeds", 0
    )


def test_a_student_is_taught(
    tmp_path: Path, models: dict[str, Path], refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    task, teacher = finished(tmp_path, models)
    run = tmp_path / "student"
    command = tuned("distil", task, teacher, models["electra"], "--out", run, "--temperature", 1.5)
    capsys.readouterr()
    assert _run(command) == 0
    assert capsys.readouterr().out == f"model: {run / 'model'}\n"
    assert _run(["evaluate", str(task), str(run / "model")]) == 0
    assert "a student is of its teacher's family" in refused(
        "distil", task, teacher, models["t5"], "--out", tmp_path / "x"
    )
    # Other settings are another run.
    assert "student" in refused(
        *tuned("distil", task, teacher, models["electra"], "--out", run, "--temperature", 3)
    )


def test_built_in_tasks_are_listed(capsys: pytest.CaptureFixture[str], refused: Callable[..., str]) -> None:
    assert _run(["task", "list"]) == 0
    printed = capsys.readouterr().out
    for name in ("squad2", "conll2003", "multirc", "chinese-reviews"):
        assert name in printed
    assert "no task 'colla'" in refused("check", "colla")
