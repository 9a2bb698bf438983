"""`unmask tokenizer train`: files that load again, a page, and clear words for mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from unmask.cli import _run
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.t5.byte_tokenizer import load_tokenizer
from unmask.t5.tokenizer import T5Tokenizer
from unmask.text.tokenizer import Tokenizer


@pytest.mark.parametrize(("kind", "size", "ids"), [("unigram", 400, 500), ("wordpiece", 130, 130)])
def test_trains(
    kind: str, size: int, ids: int, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["tokenizer", "train", str(corpus), "--kind", kind, "--vocab-size", str(size), "--out"]
    assert _run([*arguments, str(tmp_path / "a")]) == 0
    assert "tokens a word" in capsys.readouterr().out
    assert _run([*arguments, str(tmp_path / "b")]) == 0
    names = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert "report.html" in names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    family = T5Tokenizer if kind == "unigram" else ElectraTokenizer
    made: Tokenizer = family.from_pretrained(tmp_path / "a")
    assert made.vocab_size == ids


def test_bytes(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "bytes"
    assert _run(["tokenizer", "train", str(corpus), "--kind", "byte", "--out", str(out)]) == 0
    assert load_tokenizer(out).vocab_size == 384


def test_refused(corpus: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    def train(*more: object) -> str:
        return refused("tokenizer", "train", corpus, "--out", tmp_path / "made", *more)

    assert "no segmenter 'mecab' (known: " in train(
        "--kind", "wordpiece", "--vocab-size", 130, "--segmenter", "mecab"
    )
    assert "the largest that works is" in train("--kind", "unigram", "--vocab-size", 50_000)
    assert not (tmp_path / "made").exists()
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "thesis.txt").write_text("mine")
    assert "holds something else" in train("--kind", "byte")


def test_an_earlier_one_is_replaced_only_when_asked(
    corpus: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    arguments = ["tokenizer", "train", str(corpus), "--kind", "byte", "--out", str(tmp_path / "made")]
    assert _run(arguments) == 0
    assert "--overwrite" in refused(*arguments)
    assert _run([*arguments, "--vocab-size", "300", "--overwrite"]) == 0
    assert load_tokenizer(tmp_path / "made").vocab_size == 300
