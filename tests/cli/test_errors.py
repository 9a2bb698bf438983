"""What people get wrong: one clear line, exit code 2, no traceback."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unmask.cli import _run
from unmask.cli.machine import Machine
from unmask.errors import UserError
from unmask.locks import LOCK, locked

Refused = Callable[..., str]


@pytest.fixture
def pretrain(refused: Refused, corpus: Path, recipes: dict[str, Path], tmp_path: Path) -> Refused:
    """pretrain(recipe=…, data=…, out=…, flags…): a pre-training that must be refused, and its line."""

    def run(*flags: object, recipe: object = None, data: object = None, out: object = None) -> str:
        arguments = [recipe or recipes["t5"], "--data", data or corpus, "--out", out or tmp_path / "run"]
        return refused("pretrain", *arguments, "--threads", 1, *flags)

    return run


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., Path]:
    """task(kind="classification", **keys to change): a task's TOML file over eight rows."""

    def write(kind: str = "classification", **changes: str) -> Path:
        rows = "".join(f"bak dela {n},{'ab'[n % 2]}\n" for n in range(8))
        (tmp_path / "rows.csv").write_text("text,label\n" + rows)
        keys = {"name": "toy", "kind": kind, "source": "text", "target": "label"}
        keys |= {"train": "rows.csv", "test": "rows.csv"} | changes
        path = tmp_path / "task.toml"
        path.write_text("".join(f'{key} = "{value}"\n' for key, value in keys.items()))
        return path

    return write


# --- raw text --------------------------------------------------------------------------------------------


def test_wrong_path(pretrain: Refused, tmp_path: Path) -> None:
    assert f"{tmp_path / 'no'} does not exist" in pretrain(data=tmp_path / "no")
    assert not (tmp_path / "run").exists(), "nothing is written for nothing"
    assert "--data-workers -1: it must not be negative" in pretrain("--data-workers", -1)
    assert "--accumulate 0: it must be at least 1" in pretrain("--accumulate", 0)
    assert "--parallel fsdp needs several processes" in pretrain("--parallel", "fsdp", "--compile")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"good \xff bad", "byte 0xff at position 5 is not UTF-8"),
        ("a.txt.gz", b"no gzip", "a.txt.gz cannot be read"),
        ("a.txt.gz", gzip.compress(b"text" * 1000, mtime=0)[:-9], "a.txt.gz cannot be read"),
        ("a.jsonl", b'{"text": ', "a.jsonl:1 is not JSON"),
        ("a.jsonl", b'{"words": "x"}', "a.jsonl:1 has no column 'text'"),
        ("a.txt", b" \n", "no document has any text"),
        ("a.txt", b"", "no document has any text"),
        ("a.pdf", b"x", "a.pdf is none of .txt"),
        ("a.txt", b"bak del " * 50, "vocab_size=400 is too large"),
    ],
)
def test_unreadable_or_empty_text(
    name: str, content: bytes, message: str, pretrain: Refused, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in pretrain(data=tmp_path / name)


def test_one_run_a_directory(
    pretrain: Refused, refused: Refused, task: Callable[..., Path], models: dict[str, Path], tmp_path: Path
) -> None:
    with locked(tmp_path / "run", "it"):
        assert f"another process is at work on {tmp_path / 'run'}: wait for it" in pretrain()
        for command in (
            ["finetune", task(), models["electra"]],
            ["distil", task(), models["electra"], models["electra"]],
            ["compare", Path(__file__).parents[2] / "recipes" / "electra-against-mlm" / "compare.toml"],
        ):
            line = refused(*command, "--out", tmp_path / "run", "--threads", 1)
            assert "another process is at work on" in line
    assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]


def test_directory_in_place_of_a_file(pretrain: Refused, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").mkdir()
    assert "nothing to read" in pretrain(data=tmp_path / "empty.txt")
    (tmp_path / "recipe.toml").mkdir()
    assert "recipe.toml cannot be read" in pretrain(recipe=tmp_path / "recipe.toml")


def test_too_little_text_for_a_validation_split(pretrain: Refused) -> None:
    line = pretrain("--validation-share", "0.0001")
    assert "validation" in line


# --- recipes and flags -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("layers = 1", "layer = 1", "unknown key 'layer'; did you mean 'layers'?"),
        ("layers = 1", 'layers = "one"', "layers is 'one', it must be int"),
        ("layers = 1", "", "the key 'layers' is missing"),
        ("layers = 1", "layers = 0", "layers is 0, it must be at least 1"),
        ("layers = 1", "layers =", "is not valid TOML"),
        ("layers = 1", "layers = 1\nmask_rate = 0.2", "mask_rate is a setting of electra"),
        ("heads = 2", "heads = 3", "width 16 is not a multiple of heads 3"),
        ("learning_rate = 1e-3", "learning_rate = -1.0", "learning_rate is -1.0"),
    ],
)
def test_recipe_with_a_mistake(
    old: str, new: str, message: str, pretrain: Refused, recipes: dict[str, Path], tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.toml"
    text = recipes["t5"].read_text()
    assert old in text
    recipe.write_text(text.replace(old, new))
    line = pretrain(recipe=recipe)
    assert message in line
    assert str(recipe) in line


def test_recipes_that_are_not_there(pretrain: Refused, tmp_path: Path) -> None:
    assert "no recipe 't5-tny'" in pretrain(recipe="t5-tny")
    assert "did you mean 't5-tiny'?" in pretrain(recipe="t5-tny")
    assert f"no file {tmp_path / 'no.toml'}" in pretrain(recipe=tmp_path / "no.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    assert "bytes.toml cannot be read" in pretrain(recipe=tmp_path / "bytes.toml")


def test_machine(refused: Refused, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--threads 0: it must be at least 1" in refused(
        "generate", models["t5"], "--text", "a", "--threads", 0
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--device cuda: this machine has none" in refused(
        "generate", models["t5"], "--text", "a", "--device", "cuda"
    )
    with pytest.raises(UserError):
        Machine(device="cuda").prepare()


def test_output_that_is_a_file(pretrain: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert f"{tmp_path / 'file'} is a file" in pretrain(out=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "x"


def test_what_the_system_refuses(pretrain: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device", "there")

    monkeypatch.setattr("unmask.cli.preparing.atomic_directory", full)
    assert "No space left on device" in pretrain()


# --- runs ------------------------------------------------------------------------------------------------


def test_a_run_is_of_one_recipe_and_one_corpus(
    pretrain: Refused,
    corpus: Path,
    recipes: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = tmp_path / "run"
    command = ["pretrain", str(recipes["t5"]), "--data", str(corpus), "--out", str(run), "--threads", "1"]
    assert _run([*command, "--steps", "2"]) == 0
    assert "steps 2, now 3" in pretrain("--steps", 3)
    assert "vocab_size 400, now 390" in pretrain("--steps", 2, "--vocab-size", 390)
    other = tmp_path / "other.jsonl"
    shutil.copy(corpus, other)
    assert "other.jsonl" in pretrain("--steps", 2, data=other)
    # The same again: it is finished, and says so.
    caplog.clear()
    assert _run([*command, "--steps", "2"]) == 0
    assert f"{run} is finished: its model is in {run / 'model'}" in caplog.text


def test_a_failed_attempt_binds_nobody(
    pretrain: Refused, corpus: Path, recipes: dict[str, Path], tmp_path: Path
) -> None:
    assert "too small" in pretrain("--vocab-size", 300)
    command = ["pretrain", recipes["t5"], "--data", corpus, "--out", tmp_path / "run", "--steps", 1]
    assert _run([*map(str, command), "--threads", "1"]) == 0


# --- models ----------------------------------------------------------------------------------------------


@pytest.fixture
def broken(models: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the T5, to be broken."""
    return Path(shutil.copytree(models["t5"], tmp_path / "broken"))


def test_missing_tensor(broken: Path, refused: Refused) -> None:
    weights = load_file(broken / "model.safetensors")
    del weights["encoder.final_layer_norm.weight"]
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    line = refused("generate", broken, "--text", "a")
    assert "lacks the tensor 'encoder.final_layer_norm.weight'" in line


def test_damaged_files(broken: Path, refused: Refused) -> None:
    weights = broken / "model.safetensors"
    whole = weights.read_bytes()
    for cut in (0, 5, 100, len(whole) - 1):
        weights.write_bytes(whole[:cut])
        assert "model.safetensors cannot be read" in refused("generate", broken, "--text", "a")
    weights.unlink()
    assert "has no model.safetensors" in refused("generate", broken, "--text", "a")
    (broken / "config.json").write_text("{")
    assert "config.json cannot be read as JSON" in refused("generate", broken, "--text", "a")
    (broken / "config.json").write_text('{"model_type": "gpt2"}')
    assert "'gpt2'" in refused("generate", broken, "--text", "a")


def test_no_such_model(refused: Refused, tmp_path: Path) -> None:
    assert "it is no valid Hub name" in refused("generate", tmp_path / "no" / "model", "--text", "a")


@pytest.mark.parametrize("command", ["generate", "fill"])
def test_text_longer_than_electras_positions(command: str, refused: Refused, models: dict[str, Path]) -> None:
    flag = ["--text"] if command == "generate" else []
    line = refused(command, models["electra"], *flag, "bakadela " * 40)
    assert "24" in line


def test_a_text_without_a_gap(refused: Refused, models: dict[str, Path]) -> None:
    assert "the text has no gap" in refused("fill", models["t5"], "bak")


# --- tasks -----------------------------------------------------------------------------------------------


def test_model_of_the_wrong_family(
    refused: Refused, task: Callable[..., Path], models: dict[str, Path], tmp_path: Path
) -> None:
    alone = models["electra"] / "discriminator"
    line = refused("finetune", task("text-to-text"), alone, "--out", tmp_path / "a")
    assert "has no generator" in line
    line = refused("evaluate", task("text-to-text"), models["electra"])
    assert "has not learnt to answer" in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": "no.csv"}, "no.csv"),
        ({"source": "words"}, "'words'"),
        ({"target": "sense"}, "'sense'"),
        ({"kind": "regression"}, "row 1: the column 'label' holds 'a', not a number"),
        ({"kind": "regresion"}, "no kind 'regresion'; did you mean 'regression'?"),
        ({"sauce": "x"}, "unknown key 'sauce'; did you mean 'source'?"),
    ],
)
def test_task_with_a_mistake(
    changes: dict[str, str],
    message: str,
    refused: Refused,
    task: Callable[..., Path],
    models: dict[str, Path],
    tmp_path: Path,
) -> None:
    line = refused("finetune", task(**changes), models["electra"], "--out", tmp_path / "run")
    assert message in line


def test_exit_code_of_the_real_thing(unmask: Callable[..., Any], tmp_path: Path) -> None:
    code, out, error = unmask(
        "pretrain", "t5-tiny", "--data", tmp_path / "no", "--out", tmp_path / "run"
    ).wait()
    assert (code, out, error) == (2, "", f"error: {tmp_path / 'no'} does not exist\n")
