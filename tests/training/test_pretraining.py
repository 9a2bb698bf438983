"""T5's pre-training: every objective trains, is refused what means nothing to it, and says what it needs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from unmask.data.shard_writing import write_shards
from unmask.data.shards import Shards
from unmask.errors import UserError
from unmask.objectives import ul2
from unmask.objectives.text_to_text import T5Objective
from unmask.report.card import CARD
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.tokenizer import T5Tokenizer
from unmask.training.examples import batch_examples
from unmask.training.metrics import read_metrics
from unmask.training.pretraining import pretrain
from unmask.training.recipe import OBJECTIVES, PretrainRecipe
from unmask.training.t5 import t5_training_batches

LENGTH = 40
TABLE: dict[str, Any] = {
    "family": "t5",
    "vocab_size": 370,
    "layers": 1,
    "width": 16,
    "heads": 2,
    "feed_forward_width": 32,
    "length": LENGTH,
    "batch_size": 8,
    "steps": 2,
    "learning_rate": 0.01,
    "log_every": 1,
    "precision": "float32",
}


@pytest.fixture(scope="module")
def t5_tokenizer(texts: list[str]) -> T5Tokenizer:
    return T5Tokenizer.train(texts, 370)


@pytest.fixture(scope="module")
def t5_shards(
    texts: list[str], t5_tokenizer: T5Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Shards:
    directory = tmp_path_factory.mktemp("t5-shards") / "data"
    write_shards(texts, t5_tokenizer, directory, by_line=False, validation_share=0.1)
    return Shards.open(directory, t5_tokenizer)


def _recipe(**changes: Any) -> PretrainRecipe:
    return PretrainRecipe(**TABLE | changes)


@pytest.mark.parametrize("objective", get_args(T5Objective))
def test_every_objective_trains(
    objective: T5Objective, t5_shards: Shards, t5_tokenizer: T5Tokenizer, tmp_path: Path
) -> None:
    recipe = _recipe(objective=objective)
    directory = pretrain(recipe, t5_shards, t5_tokenizer, tmp_path, device=torch.device("cpu"))
    T5ForConditionalGeneration.from_pretrained(directory)
    kinds = [line["kind"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert kinds == ["evaluation", "sample", "training", "training", "evaluation", "sample"]
    examples = batch_examples(recipe, t5_shards, t5_tokenizer, 0)
    assert len(examples) == 8
    for example in examples:
        assert set(example) == {"input", "target"}
        assert all(text.endswith("</s>") for text in example.values())
        assert (example["input"] == "</s>") == (objective == "causal-lm")
        assert example["input"].startswith(("[NLU]", "[NLG]", "[S2S]")) == (objective == "ul2")
    marked = any("<extra_id_0>" in example["input"] for example in examples)
    assert marked == (objective in ("span-corruption", "iid-spans", "bert-style", "mass-style", "ul2"))


def test_settings_of_the_noise_reach_the_stream(t5_shards: Shards, t5_tokenizer: T5Tokenizer) -> None:
    def sizes(**changes: Any) -> tuple[int, int]:
        batch = t5_training_batches(_recipe(**changes), t5_shards, t5_tokenizer)[1]
        return int(batch["input_lengths"].max()), int(batch["target_lengths"].max())

    assert sizes() == (LENGTH, 10)  # 44 tokens: 7 of noise in 2 spans
    assert sizes(noise_density=0.4) == (LENGTH, 30)  # 54 tokens: 22 of noise in 7 spans
    assert sizes(mean_span_length=1.0) == (LENGTH, 13)  # 39 tokens: 6 of noise in 6 spans


def test_a_mode_before_a_text_is_what_was_trained_on(t5_tokenizer: T5Tokenizer) -> None:
    for mode in ul2.MODES:
        ids = t5_tokenizer.encode(mode, add_special_tokens=False)
        assert t5_tokenizer.encode(f"{mode} abak")[: len(ids)] == ids


def test_batches_of_a_budget_of_tokens(t5_shards: Shards, t5_tokenizer: T5Tokenizer, tmp_path: Path) -> None:
    recipe = _recipe(batch_size=None, batch_tokens=500)
    pretrain(recipe, t5_shards, t5_tokenizer, tmp_path, device=torch.device("cpu"))
    assert [path.name for path in (tmp_path / "plans").iterdir()] == ["batches-00000.npz"]
    with pytest.raises(UserError, match=r"an example has .* tokens and batch_tokens is 20"):
        pretrain(
            _recipe(batch_size=None, batch_tokens=20),
            t5_shards,
            t5_tokenizer,
            tmp_path / "small",
            device=torch.device("cpu"),
        )
    with pytest.raises(UserError, match="give one of batch_size"):
        _recipe(batch_tokens=500)
    assert PretrainRecipe.load("t5-tiny", {"batch_tokens": 4096}).batch_size is None


def test_the_card_says_what_the_run_knows(
    t5_shards: Shards, t5_tokenizer: T5Tokenizer, tmp_path: Path
) -> None:
    recipe = _recipe()
    model = pretrain(recipe, t5_shards, t5_tokenizer, tmp_path / "run", device=torch.device("cpu"))
    card = (model / CARD).read_text()
    first, last = (
        line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "evaluation"
    )
    for fact in (
        "trained from drawn weights by span corruption",
        f"| training | {t5_shards.train.documents:,} documents, {t5_shards.train.tokens:,} tokens, ",
        f"| held-out loss | {last['loss']:.4f} (before training {first['loss']:.4f}) |",
        f"| learning rate | {recipe.learning_rate} |",
    ):
        assert fact in card


def test_objectives_are_different_runs(t5_shards: Shards, t5_tokenizer: T5Tokenizer, tmp_path: Path) -> None:
    pretrain(_recipe(steps=1), t5_shards, t5_tokenizer, tmp_path, device=torch.device("cpu"))
    with pytest.raises(UserError, match="objective None, now 'prefix-lm'"):
        pretrain(
            _recipe(steps=1, objective="prefix-lm"),
            t5_shards,
            t5_tokenizer,
            tmp_path,
            device=torch.device("cpu"),
        )


def test_modes_that_the_vocabulary_cannot_write(t5_shards: Shards, t5_tokenizer: T5Tokenizer) -> None:
    class Poor(T5Tokenizer):
        def _encode_plain(self, texts: list[str]) -> list[list[int]]:
            return [[self.unk_token_id] for _ in texts]

    with pytest.raises(UserError, match=r"UL2's inputs begin with \[NLU\], which the tokenizer cannot write"):
        batch_examples(_recipe(objective="ul2"), t5_shards, Poor(t5_tokenizer.vocabulary), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"objective": "replaced-tokens"},
            "objective 'replaced-tokens' is not one of t5, which has span-corr",
        ),
        (
            {"family": "electra", "objective": "ul2"},
            "objective 'ul2' is not one of electra, which has replaced-",
        ),
        ({"objective": "ul2", "noise_density": 0.3}, "noise_density means nothing to the objective 'ul2'"),
        ({"objective": "deshuffling", "noise_density": 0.3}, "noise_density means nothing to the objective"),
        ({"objective": "bert-style", "mean_span_length": 2.0}, "mean_span_length means nothing to the objec"),
        (
            {"objective": "prefix-lm", "noise_density": 0.6},
            "prefix LM needs a number above 0 and at most 0.5",
        ),
        ({"mean_span_length": 0.5}, "mean span length is 0.5"),
        ({"length": 3}, "inputs_length is 3"),
    ],
)
def test_recipes_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _recipe(**settings)


def test_each_objective_is_one_familys() -> None:
    names = [name for family in OBJECTIVES.values() for name in family]
    assert len(set(names)) == len(names)
    assert _recipe().chosen_objective == OBJECTIVES["t5"][0]
    assert _recipe(family="electra").chosen_objective == OBJECTIVES["electra"][0]


def test_another_objective_by_flag_leaves_out_what_it_has_no_use_for() -> None:
    recipe = PretrainRecipe.load("t5-tiny")
    assert recipe.noise_density == 0.3
    changed = PretrainRecipe.load("t5-tiny", {"objective": "deshuffling"})
    assert changed == dataclasses.replace(recipe, objective="deshuffling", noise_density=None)
    assert PretrainRecipe.load("t5-tiny", {"objective": "bert-style"}).noise_density == 0.3
    with pytest.raises(UserError, match="noise_density means nothing"):
        PretrainRecipe.load("t5-tiny", {"objective": "deshuffling", "noise_density": 0.3})


def test_sentinels_that_an_objective_needs() -> None:
    assert _recipe(length=512).sentinels_needed() == 28
    assert _recipe(length=512, objective="ul2").sentinels_needed() == 128
    assert _recipe(length=512, noise_density=0.5).sentinels_needed() == 128
