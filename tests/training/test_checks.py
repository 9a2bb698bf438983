"""What the doctor finds wrong: each fault is named with its value and a way out, and a sound recipe has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unmask.data.shard_writing import write_shards
from unmask.data.shards import Shards
from unmask.training.checks import Reading, check_data, check_recipe, unknown_share
from unmask.training.recipe import PretrainRecipe


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("t5-tiny", {"learning_rate": 1.0}, "learning_rate is 1, above what is usual for scaled-adamw"),
        ("electra-tiny", {"learning_rate": 1e-6}, "learning_rate is 1e-06, below"),
        ("t5-tiny", {"optimiser": "adamw", "learning_rate": 3e-3}, "diverges on T5"),
        ("t5-tiny", {"weight_decay": 0.5}, "weight_decay is 0.5 with scaled-adamw"),
        ("t5-tiny", {"clip_norm": 0.0}, "clip_norm is 0"),
        ("t5-tiny", {"warmup_steps": 600}, "warmup_steps is 600 and the run has 600"),
        ("t5-tiny", {"warmup_steps": 300}, "warmup_steps is 300, 50% of the run: 30 is"),
        ("t5-tiny", {"warmup_steps": 0}, "warmup_steps is 0: the first steps"),
        ("t5-tiny", {"warmup_steps": 0, "schedule": "inverse-square-root"}, "T5's is 10,000"),
        (
            "t5-tiny",
            {"optimiser": "adafactor", "schedule": "constant"},
            "schedule is constant with adafactor",
        ),
        ("t5-tiny", {"noise_density": 0.8}, "noise_density is 0.8"),
        ("electra-tiny", {"mask_rate": 0.6}, "mask_rate is 0.6"),
        ("electra-tiny", {"generator_share": 1.0}, "generator_share is 1"),
        ("electra-tiny", {"length": 1024}, "length is 1024"),
        ("electra-tiny", {"checkpoint_every": 0}, "checkpoint_every is 0"),
        ("electra-tiny", {"evaluate_every": 0}, "evaluate_every is 0"),
        (
            "electra-tiny",
            {"ema_decay": 0.999},
            "ema_decay is 0.999: it averages over 1,000 of 400 steps; 0.975",
        ),
    ],
)
def test_of_a_recipe(name: str, changes: dict[str, Any], message: str) -> None:
    (found,) = check_recipe(PretrainRecipe.load(name, changes))
    assert message in found


def test_a_writer_s_generator_may_be_as_strong(tmp_path: Path) -> None:
    changes = {"generator_share": 1.0, "objective": "masked-diffusion"}
    assert not list(check_recipe(PretrainRecipe.load("electra-tiny", changes)))


class Letters:
    """A token for each character; `?` is unknown."""

    vocab_size = 200
    fingerprint = "letters"
    releases_gil = False

    def encode_arrays(self, texts: list[str]) -> list[np.ndarray]:
        return [np.array([1 if letter == "?" else ord(letter) for letter in text]) for text in texts]


def _shards(directory: Path, text: str, documents: int = 40) -> Shards:
    texts = [f"{text}{number:02}" for number in range(documents)]
    write_shards(texts, Letters(), directory, by_line=True, validation_share=0.2)
    return Shards.open(directory)


def test_of_data(tmp_path: Path) -> None:
    recipe = PretrainRecipe.load("electra-tiny")
    shards = _shards(tmp_path / "one", "a?cdef")
    found = list(check_data(recipe, shards, 1, Reading(123.0, shards.train.tokens)))
    for message in (
        "read 123 times",
        "130 steps",
        "held out are",
        "12.5% of the tokens",
        "1.00 characters",
        "at most 8",
    ):
        assert sum(message in each for each in found) == 1
    assert len(found) == 5
    assert unknown_share(shards.train, 1) == pytest.approx(1 / 8)
    long = _shards(tmp_path / "two", "abcd" * 30)
    assert not any("length is" in each for each in check_data(recipe, long, 1, Reading(1.0, 1)))


def test_of_sound_data(tmp_path: Path) -> None:
    shards = _shards(tmp_path / "one", "abcd" * 500, documents=100)

    class Words(Letters):
        fingerprint = "words"

        def encode_arrays(self, texts: list[str]) -> list[np.ndarray]:
            return [np.arange(10, 10 + len(text) // 4) % 90 + 5 for text in texts]

    texts = ["".join(chr(97 + (n * k) % 26) for k in range(4000)) for n in range(100)]
    write_shards(texts, Words(), tmp_path / "words", by_line=True, validation_share=0.2)
    shards = Shards.open(tmp_path / "words")
    assert not list(
        check_data(PretrainRecipe.load("electra-tiny"), shards, 1, Reading(3.0, shards.train.tokens))
    )
