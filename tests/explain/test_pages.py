"""`unmask explain` writes one page, the same bytes twice, and refuses what it cannot explain."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import save_electra

from unmask.cli import _run
from unmask.electra.heads import ElectraForSequenceClassification, ElectraForTokenClassification
from unmask.electra.model import ElectraForMaskedLM, ElectraForPreTraining
from unmask.t5.byte_tokenizer import ByT5Tokenizer
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration

pytest.importorskip("captum", reason="needs the extra explain")

WORDS = ["the", "cook", "ate", "a", "meal", "."]


@pytest.fixture
def t5(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = T5Config(vocab_size=300, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    ByT5Tokenizer(extra_ids=20).save_pretrained(tmp_path / "t5")
    return tmp_path / "t5"


def electra(place: Path, kind: type) -> Path:
    return save_electra(place, kind, WORDS, max_position_embeddings=16, labels=("bad", "good"))


def page(model: Path, out: Path, text: str, *options: str) -> str:
    command = ["explain", str(model), "--text", text, "--out", str(out), "--steps", "4", *options]
    assert _run(command) == 0
    first = out.read_bytes()
    assert _run(command) == 0
    assert out.read_bytes() == first
    return first.decode()


def test_t5(t5: Path, tmp_path: Path) -> None:
    html = page(t5, tmp_path / "page.html", "a <b>", "--target", "bc")
    for heading in ("Evidence for each token", "Attention", "Layer by layer", "Relative positions"):
        assert f">{heading}</h2>" in html
    assert "&lt;b&gt;" in html and "<script" not in html and "http" not in html.replace("http-equiv", "")
    # Without a target it is the model's own.
    assert ">Evidence for each token</h2>" in page(t5, tmp_path / "page.html", "ab", "--max-new-tokens", "2")


def test_electra(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    suspicious = page(electra(tmp_path / "d", ElectraForPreTraining), out, "the cook ate")
    assert "probability that the token was replaced" in suspicious
    label = page(
        electra(tmp_path / "c", ElectraForSequenceClassification), out, "the cook ate", "--target", "good"
    )
    assert ">Evidence for good</h2>" in label
    assert "Gap at 2" in page(electra(tmp_path / "g", ElectraForMaskedLM), out, "the ___ ate")


def test_refusals(t5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(model: Path, *options: str) -> str:
        out = tmp_path / "none.html"
        assert _run(["explain", str(model), "--out", str(out), *options]) == 2
        assert not out.exists()
        return capsys.readouterr().err

    assert "--text is empty" in refused(t5, "--text", " ")
    assert "at most 256" in refused(t5, "--text", "a" * 300)
    assert "steps is 0" in refused(t5, "--text", "a", "--steps", "0")
    classifier = electra(tmp_path / "c", ElectraForSequenceClassification)
    assert "no label of the model: bad, good" in refused(classifier, "--text", "the", "--target", "fine")
    tagger = electra(tmp_path / "t", ElectraForTokenClassification)
    assert "ElectraForTokenClassification" in refused(tagger, "--text", "the")
    generator = electra(tmp_path / "g", ElectraForMaskedLM)
    assert "no gap" in refused(generator, "--text", "the cook")
