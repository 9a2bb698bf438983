"""`unmask doctor`: what it asks, what it prints; the findings themselves are tested beside `training.doctor`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unmask.cli import _run
from unmask.training.doctor import Findings
from unmask.training.settings import Execution


@pytest.mark.parametrize("warnings", [["learning_rate is 9: try 1", "no room"], []])
def test_facts_and_what_looks_wrong(
    warnings: list[str],
    recipes: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[Any] = []

    def examine(*arguments: Any, **options: Any) -> Findings:
        asked.append((arguments, options))
        return Findings({"a step": "3 s"}, warnings)

    monkeypatch.setattr("unmask.training.doctor.examine", examine)
    flags = ["--learning-rate", "9", "--checkpoint-activations", "--threads", "1"]
    assert _run(["doctor", str(recipes["electra"]), *flags]) == 0
    ((recipe, read, vocabulary, _), options) = asked[0]
    assert (recipe.family, recipe.learning_rate, read, vocabulary) == ("electra", 9.0, None, None)
    assert options["execution"] == Execution(checkpoint_activations=True)
    out = capsys.readouterr().out
    assert "a step" in out and "3 s" in out
    assert [line for line in out.splitlines() if line.startswith("warning: ")] == [
        f"warning: {warning}" for warning in warnings
    ]
    assert ("nothing looks wrong" in out) == (not warnings)


def test_raw_text_is_refused(refused: Callable[..., str], recipes: dict[str, Path], corpus: Path) -> None:
    assert "the doctor reads packed shards" in refused("doctor", recipes["t5"], "--data", corpus)
