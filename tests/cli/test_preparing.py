"""What is prepared for a run: a tokenizer that its objective can work with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from unmask.cli import _run
from unmask.cli.preparing import prepare_data
from unmask.errors import UserError
from unmask.t5.tokenizer import T5Tokenizer
from unmask.training.recipe import PretrainRecipe
from unmask.vocabulary.loading import load_any_tokenizer


def test_a_trained_tokenizer_has_the_sentinels_that_the_objective_needs(
    recipes: dict[str, Path], corpus: Path, tmp_path: Path
) -> None:
    def prepared(name: str, **changes: object) -> int:
        recipe = PretrainRecipe.load(str(recipes["t5"]), changes)
        _, tokenizer = prepare_data(recipe, [str(corpus)], tmp_path / name, None)
        assert isinstance(tokenizer, T5Tokenizer)
        return len(tokenizer.sentinel_ids)

    assert prepared("spans") == 100
    assert prepared("ul2", length=512, objective="ul2") == 128
    with pytest.raises(UserError, match="sentinels 128, now 100"):
        prepared("ul2")


@pytest.mark.parametrize("family", ["t5", "electra"])
def test_a_run_keeps_the_tokenizer_of_the_checkpoint_that_it_begins_with(
    family: str, recipes: dict[str, Path], models: dict[str, Path], corpus: Path, tmp_path: Path
) -> None:
    start = tmp_path / "start"
    shutil.copytree(models[family], start)
    recipe = PretrainRecipe.load(str(recipes[family]), {"start_from": str(start), "vocab_size": 99})

    def prepared() -> str:
        _, tokenizer = prepare_data(recipe, [str(corpus)], tmp_path / "run", None)
        return tokenizer.fingerprint

    assert prepared() == load_any_tokenizer(start).fingerprint
    shutil.rmtree(start)
    assert prepared() == load_any_tokenizer(models[family]).fingerprint


@pytest.mark.parametrize("family", ["t5", "electra"])
def test_a_run_that_is_copied_elsewhere_needs_nothing_else(
    family: str, models: dict[str, Path], tmp_path: Path
) -> None:
    """Neither the recipe's file nor the text: from the same first weights to the same last ones."""
    run = tmp_path / "elsewhere"
    shutil.copytree(models[family].parent, run)
    shutil.rmtree(run / "model")
    assert _run(["pretrain", str(run), "--threads", "1"]) == 0
    weights = {
        path.relative_to(run / "model"): path.read_bytes() for path in run.rglob("model/**/*.safetensors")
    }
    assert len(weights) == (1 if family == "t5" else 2)
    assert all((models[family] / name).read_bytes() == content for name, content in weights.items())


def test_a_run_has_a_copy_of_the_tokenizer_that_it_was_given(
    recipes: dict[str, Path], models: dict[str, Path], corpus: Path, tmp_path: Path
) -> None:
    recipe = PretrainRecipe.load(str(recipes["t5"]))
    shards, given = prepare_data(recipe, [str(corpus)], tmp_path / "run", str(models["t5"]))
    again, own = prepare_data(recipe, None, tmp_path / "run", None)
    assert (shards.checksum, given.fingerprint) == (again.checksum, own.fingerprint)


def test_what_a_run_does_not_have_is_asked_for(
    refused: Callable[..., str], recipes: dict[str, Path], tmp_path: Path
) -> None:
    assert "--out is missing" in refused("pretrain", recipes["t5"])
    assert "has no data and tokenizer of its own: name what it reads with --data" in refused(
        "pretrain", recipes["t5"], "--out", tmp_path / "run"
    )
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text("{}")
    assert "has no recipe: it is of no pre-training" in refused("pretrain", tmp_path / "other")
    assert "neither a TOML file nor a run nor shipped" in refused("pretrain", tmp_path)
