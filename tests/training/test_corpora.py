"""Pre-training on several corpora: who is read how often, what is measured of each, and going on after a stop."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unmask import hub
from unmask.data.shard_writing import write_shards
from unmask.data.shards import Shards
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.t5.tokenizer import T5Tokenizer
from unmask.training.electra import training_batches
from unmask.training.metrics import read_metrics
from unmask.training.pretraining import pretrain
from unmask.training.recipe import PretrainRecipe
from unmask.training.t5 import t5_training_batches

FAMILIES = ("t5", "electra")
TABLE: dict[str, Any] = {
    "vocab_size": 370,
    "layers": 1,
    "width": 16,
    "heads": 2,
    "feed_forward_width": 32,
    "length": 24,
    "batch_size": 40,
    "steps": 3,
    "learning_rate": 0.01,
    "log_every": 1,
    "precision": "float32",
}
Made = tuple[dict[str, Shards], Any]


@pytest.fixture(scope="module")
def made(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """Family → two corpora and their tokenizer; "early" has words of a to e alone, and twice the text of "late"."""
    draw = random.Random(1)

    def corpus(letters: str, documents: int) -> list[str]:
        words = [first + second for first in letters for second in ("bak", "del", "fim", "gon")]
        return ["\n".join(" ".join(draw.choices(words, k=8)) for _ in range(4)) for _ in range(documents)]

    corpora = {"late": corpus("fghij", 40), "early": corpus("abcde", 80)}
    tokenizers = {"t5": T5Tokenizer.train(texts, 370), "electra": ElectraTokenizer.train(texts, 140)}
    made: dict[str, Made] = {}
    for family, tokenizer in tokenizers.items():
        opened = {}
        for name, documents in corpora.items():
            directory = tmp_path_factory.mktemp(family) / name
            by_line = family == "electra"
            write_shards(documents, tokenizer, directory, by_line=by_line, validation_share=0.2)
            opened[name] = Shards.open(directory, tokenizer)
        made[family] = opened, tokenizer
    return made


def _recipe(family: str, **changes: Any) -> PretrainRecipe:
    return PretrainRecipe(**{"family": family} | TABLE | changes)


def _early_share(family: str, made: Made, **changes: Any) -> float:
    """Of a batch's examples, how many are the corpus "early"'s."""
    corpora, tokenizer = made
    make: Any = t5_training_batches if family == "t5" else training_batches
    batch = make(_recipe(family, **changes), corpora, tokenizer)[0]
    stream, lengths = ("inputs", "input_lengths") if family == "t5" else ("tokens", "lengths")
    rows = np.split(batch[stream], np.cumsum(batch[lengths])[:-1])
    texts = [tokenizer.decode(row.tolist(), skip_special_tokens=True) for row in rows]
    # Of most words: a piece may begin inside of one.
    early = [sum(word[0] in "abcde" for word in text.split()) > len(text.split()) / 2 for text in texts]
    assert len(early) == 40
    return sum(early) / len(early)


@pytest.mark.parametrize("family", FAMILIES)
def test_rates(family: str, made: dict[str, Made]) -> None:
    corpora, _ = made[family]
    sizes = [corpora[name].train.tokens for name in ("early", "late")]
    by_size = sizes[0] / sum(sizes)
    assert by_size > 0.6
    assert _early_share(family, made[family]) == pytest.approx(by_size, abs=0.06)
    assert _early_share(family, made[family], mixture_cap=10) == pytest.approx(0.5, abs=0.06)
    assert _early_share(family, made[family], mixture_temperature=1e6) == pytest.approx(0.5, abs=0.06)
    rates = {"late": 4.0, "early": 1.0}
    assert _early_share(family, made[family], mixture=rates) == pytest.approx(0.2, abs=0.06)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_that_is_stopped_ends_the_same(family: str, made: dict[str, Made], tmp_path: Path) -> None:
    corpora, tokenizer = made[family]
    recipe = _recipe(family, mixture={"early": 1.0, "late": 2.0}, checkpoint_every=1, keep_checkpoints=3)

    def weights(data: dict[str, Shards]) -> list[bytes]:
        model = pretrain(recipe, data, tokenizer, tmp_path, device=torch.device("cpu"))
        return [path.read_bytes() for path in sorted(model.rglob("*.safetensors"))]

    whole, lines = weights(corpora), read_metrics(tmp_path / "metrics.jsonl")
    assert hub.read_json(tmp_path / "run.json")["data"] == {
        name: shards.checksum for name, shards in corpora.items()
    }
    shutil.rmtree(tmp_path / "model")
    for step in (2, 3):
        shutil.rmtree(tmp_path / "checkpoints" / f"step-0000000{step}")
    # Also with the corpora named in another order.
    assert weights(dict(reversed(corpora.items()))) == whole

    losses = {name: value for name, value in lines[0].items() if name.partition("/")[0].endswith("loss")}
    kinds = {name.partition("/")[0] for name in losses}
    assert kinds == ({"loss"} if family == "t5" else {"generator_loss", "discriminator_loss"})
    for kind in kinds:
        parts = [losses[f"{kind}/early"], losses[f"{kind}/late"]]
        assert min(parts) < losses[kind] < max(parts)
    with pytest.raises(UserError, match="other settings"):
        weights(corpora | {"late": corpora["early"]})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_corpus_is_measured_as_in_a_run_on_it_alone(
    family: str, made: dict[str, Made], tmp_path: Path
) -> None:
    corpora, tokenizer = made[family]

    def first(data: Any, name: str) -> dict[str, Any]:
        pretrain(_recipe(family, steps=1), data, tokenizer, tmp_path / name, device=torch.device("cpu"))
        return read_metrics(tmp_path / name / "metrics.jsonl")[0]

    both, alone = first(corpora, "both"), first(corpora["early"], "alone")
    names = alone.keys() - {"step", "kind"}
    assert {name: both[f"{name}/early"] for name in names} == {name: alone[name] for name in names}
    assert both.keys() == alone.keys() | {f"{name}/{corpus}" for name in names for corpus in corpora}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixture": {"early": 1.0}}, "the corpus 'late' has no rate"),
        (
            {"mixture": {"early": 1.0, "late": 1.0, "lat": 1.0}},
            "no corpus is named 'lat'; did you mean 'late'?",
        ),
        ({"mixture": {"early": 1.0, "late": 0.0}}, "the rate of 'late' is 0.0, it must be above 0"),
        ({"mixture": {"early": 1.0}, "mixture_cap": 5}, "mixture_cap is of rates by size"),
        ({"mixture_temperature": 0.0}, "mixture_temperature is 0.0, it must be above 0"),
        ({"mixture_cap": -1}, "mixture_cap is -1, it must be above 0"),
    ],
)
def test_rates_that_cannot_be(settings: dict[str, Any], message: str, made: dict[str, Made]) -> None:
    with pytest.raises(UserError, match=message):
        t5_training_batches(_recipe("t5", **settings), *made["t5"])


@pytest.mark.parametrize("name", ["mixture", "mixture_temperature", "mixture_cap"])
def test_a_corpus_without_a_name_has_no_rates(name: str, made: dict[str, Made]) -> None:
    corpora, tokenizer = made["t5"]
    recipe = _recipe("t5", **{name: {"early": 1.0} if name == "mixture" else 2})
    with pytest.raises(UserError, match=f"{name} is of several corpora"):
        t5_training_batches(recipe, corpora["early"], tokenizer)
