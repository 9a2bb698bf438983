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
    assert read_sample(path, family="t5").sources == [f"s{n}" for n in range(10)]
    assert read_sample(path, family="t5", limit=4) == Sample(
        ["s0", "s2", "s5", "s7"], ["t0", "t2", "t5", "t7"]
    )
    assert read_sample(path, family="t5", target="other", limit=1) == Sample(["s0"], ["o0"])
    with pytest.raises(UserError, match="wish"):
        read_sample(path, family="t5", source="wish")


def test_targets_may_be_absent_but_not_those_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"source": "a"}\n{"source": "b"}\n')
    assert read_sample(path, family="t5") == Sample(["a", "b"])
    with pytest.raises(UserError, match="label"):
        read_sample(path, family="t5", target="label")
    with pytest.raises(UserError, match="text"):
        read_sample(path, family="t5", source="text")


def test_tasks() -> None:
    restaurants = read_sample(SAMPLE / "restaurants" / "task.toml", family="t5", limit=3)
    assert restaurants.targets is not None and len(restaurants.sources) == len(restaurants.targets) == 3
    assert "name[" in restaurants.sources[0]
    senses = read_sample(SAMPLE / "senses" / "task.toml", family="electra", limit=3)
    assert senses.targets is not None and all("." in label for label in senses.targets)
    assert senses.seconds is None
    with pytest.raises(UserError, match="names its columns itself"):
        read_sample(SAMPLE / "restaurants" / "task.toml", family="t5", source="meaning")


def test_rows_are_read_as_the_model_reads_them(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("one,two,label\nthe cat,a cat,1\nthe dog,a cup,0\n")
    task = tmp_path / "task.toml"
    task.write_text(
        'name = "p"\nkind = "pair-classification"\nsource = ["one", "two"]\ntarget = "label"\ntest = "pairs.csv"\n'
        'prefix = "same: "\nlabel_words = { 0 = "no", 1 = "yes" }\n'
    )
    assert read_sample(task, family="t5") == Sample(
        ["same: one: the cat two: a cat", "same: one: the dog two: a cup"], ["yes", "no"]
    )
    assert read_sample(task, family="electra") == Sample(
        ["the cat", "the dog"], ["1", "0"], ["a cat", "a cup"]
    )
    (tmp_path / "tags.jsonl").write_text('{"tokens": "Ada sat", "tags": "B-per O"}\n')
    task.write_text('name = "t"\nkind = "tagging"\nsource = "tokens"\ntarget = "tags"\ntest = "tags.jsonl"\n')
    assert read_sample(task, family="t5") == Sample(["Ada sat"], ["per: Ada"])
    # A word's tag is no target of the whole text.
    assert read_sample(task, family="electra") == Sample(["Ada sat"])
