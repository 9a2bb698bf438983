"""Pairs of texts from files and tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

import unmask
from unmask.errors import UserError
from unmask.tasks.pairs import read_pairs

SAMPLE = Path(unmask.__file__).parent / "sample"


def test_columns_and_an_even_spread(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("source,target,other\n" + "".join(f"s{n},t{n},o{n}\n" for n in range(10)))
    assert read_pairs(path)[0] == [f"s{n}" for n in range(10)]
    assert read_pairs(path, limit=4) == (["s0", "s2", "s5", "s7"], ["t0", "t2", "t5", "t7"])
    assert read_pairs(path, target="other", limit=1) == (["s0"], ["o0"])
    with pytest.raises(UserError, match="wish"):
        read_pairs(path, source="wish")


def test_tasks() -> None:
    sources, targets = read_pairs(SAMPLE / "restaurants" / "task.toml", limit=3)
    assert len(sources) == len(targets) == 3
    assert "name[" in sources[0]
    with pytest.raises(UserError, match="is classification: pairs of texts come from text-to-text"):
        read_pairs(SAMPLE / "senses" / "task.toml")
    with pytest.raises(UserError, match="names its columns itself"):
        read_pairs(SAMPLE / "restaurants" / "task.toml", source="meaning")
