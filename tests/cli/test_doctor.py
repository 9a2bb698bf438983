"""`unmask doctor`: what it prints, and what it refuses before anything is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from unmask.cli import _run
from unmask.training import trial


def test_facts_and_warnings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(trial, "SECONDS", 0.0)
    monkeypatch.setattr(trial, "matrix_peak", lambda device, precision: 1e10)
    flags = [
        "--vocab-size",
        "600",
        "--batch-size",
        "4",
        "--precision",
        "float32",
        "--learning-rate",
        "3",
        "--device",
        "cpu",
    ]
    assert _run(["doctor", "electra-tiny", *flags, "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    for text in (
        "electra-tiny on cpu",
        "parameters",
        "the run",
        "400 steps",
        "warning: learning_rate is 3, above",
    ):
        assert text in printed
    assert not (tmp_path / "run").exists()


def test_raw_text_is_packed_first(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    assert _run(["doctor", "t5-tiny", "--data", str(tmp_path / "a.txt")]) == 2
    assert "make them with `unmask pack`" in capsys.readouterr().err
