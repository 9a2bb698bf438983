"""Samples from files and tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

import unmask
from unmask.errors import UserError
from unmask.export.cost import Sample
from unmask.tasks.samples import read_sample

SAMPLE = Path(unmask.__file__).parent / "sample"


def test_columns_and_an_even_spread(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("source,target,other\n" + "".join(f"s{n},t{n},o{n}\n" for n in range(10)))
    assert read_sample(path).sources == [f"s{n}" for n in range(10)]
    assert read_sample(path, limit=4) == Sample(["s0", "s2", "s5", "s7"], ["t0", "t2", "t5", "t7"])
    assert read_sample(path, target="other", limit=1) == Sample(["s0"], ["o0"])
    with pytest.raises(UserError, match="wish"):
        read_sample(path, source="wish")


def test_targets_may_be_absent_but_not_those_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"source": "a"}\n{"source": "b"}\n')
    assert read_sample(path) == Sample(["a", "b"])
    with pytest.raises(UserError, match="label"):
        read_sample(path, target="label")
    with pytest.raises(UserError, match="text"):
        read_sample(path, source="text")


def test_tasks() -> None:
    restaurants = read_sample(SAMPLE / "restaurants" / "task.toml", limit=3)
    assert restaurants.targets is not None and len(restaurants.sources) == len(restaurants.targets) == 3
    assert "name[" in restaurants.sources[0]
    senses = read_sample(SAMPLE / "senses" / "task.toml", limit=3)
    assert senses.targets is not None and all("." in label for label in senses.targets)
    with pytest.raises(UserError, match="names its columns itself"):
        read_sample(SAMPLE / "restaurants" / "task.toml", source="meaning")
