"""What is prepared for a run: a tokenizer that its objective can work with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

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
