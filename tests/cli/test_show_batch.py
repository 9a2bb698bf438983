"""`unmask show-batch`: the examples that a run with the recipe trains on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from unmask.cli import _run


def _shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    capsys.readouterr()
    assert _run(["show-batch", *map(str, arguments)]) == 0
    return [line for line in capsys.readouterr().out.splitlines() if line]


def test_t5(recipes: dict[str, Path], models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    data = models["t5"].parent / "data"
    text = " ".join(_shown(capsys, recipes["t5"], "--data", data, "--examples", 4))
    examples = re.findall(r"\d input: (.*?)</s> \d target: (.*?)</s>", text)
    assert len(examples) == 4
    for source, target in examples:
        sentinels = re.findall(r"<extra_id_\d+>", source)
        assert sentinels
        assert re.findall(r"<extra_id_\d+>", target)[: len(sentinels)] == sentinels
    assert _shown(capsys, recipes["t5"], "--data", data, "--batch", 1) != _shown(
        capsys, recipes["t5"], "--data", data
    )


def test_another_objective(
    recipes: dict[str, Path], models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = models["t5"].parent / "data"
    text = " ".join(_shown(capsys, recipes["t5"], "--data", data, "--objective", "ul2"))
    assert len(re.findall(r"\d input: (\[NLU\]|\[NLG\]|\[S2S\])", text)) == 4
    text = " ".join(_shown(capsys, recipes["t5"], "--data", data, "--objective", "deshuffling"))
    for source, target in re.findall(r"\d input: (.*?)</s> \d target: (.*?)</s>", text):
        assert source != target
        assert sorted(source.replace(" ", "")) == sorted(target.replace(" ", ""))


def test_bytes_are_trained_on_and_shown(
    recipes: dict[str, Path], corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.jsonl").write_text(corpus.read_text().replace("bak", "bäk"), encoding="utf-8")
    tokenizer, packed, run = (str(tmp_path / name) for name in ("tokenizer", "packed", "run"))
    texts = str(tmp_path / "texts.jsonl")
    assert _run(["tokenizer", "train", texts, "--kind", "byte", "--out", tokenizer]) == 0
    share = ["--validation-share", "0.1"]
    assert _run(["pack", texts, "--tokenizer", tokenizer, "--out", packed, *share]) == 0
    text = "\n".join(_shown(capsys, recipes["t5"], "--data", packed, "--length", 64))
    assert "ä" in text
    examples = re.findall(r"\d input: (.*?)</s>\n\d target: (.*?)</s>", text, re.DOTALL)
    assert len(examples) == 4
    for source, target in examples:
        # Sentinels are bytes that no text has.
        sentinels = re.findall(r"\\xf[5-f]", source)
        assert sentinels == ["\\xff", "\\xfe", "\\xfd", "\\xfc"][: len(sentinels)]
        assert len(sentinels) > 1
        assert sentinels == re.findall(r"\\xf[5-f]", target)
    flags = ["--steps", "2", "--checkpoint-every", "0", "--threads", "1"]
    assert _run(["pretrain", str(recipes["t5"]), "--data", packed, "--out", run, *flags]) == 0
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["vocab_size"] == 384
    assert _run(["fill", str(tmp_path / "run" / "model"), "abak ___ afim"]) == 0
    flags = ["--objective", "span-corruption", "--length", "512"]
    assert _run(["show-batch", str(recipes["t5"]), "--data", packed, *flags]) == 2
    assert "need 28 sentinels and the vocabulary has 11" in capsys.readouterr().err


def test_electra(
    recipes: dict[str, Path], models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = models["electra"].parent / "data"
    lines = _shown(capsys, recipes["electra"], "--data", data, "--examples", 2)
    assert [line.split(":")[0] for line in lines] == ["0 input", "0 original", "1 input", "1 original"]
    assert any("[MASK]" in line for line in lines[::2])
    assert not any("[MASK]" in line for line in lines[1::2])


def test_refused(
    recipes: dict[str, Path], models: dict[str, Path], tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert "no directory of shards" in refused("show-batch", recipes["t5"], "--data", tmp_path)
    data = models["t5"].parent / "data"
    assert "--examples 0" in refused("show-batch", recipes["t5"], "--data", data, "--examples", 0)
    assert "'masked-lm' is not one of t5" in refused(
        "show-batch", recipes["t5"], "--data", data, "--objective", "masked-lm"
    )
    assert "--batch -1" in refused("show-batch", recipes["t5"], "--data", data, "--batch", -1)
