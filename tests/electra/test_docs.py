"""The Python of docs/electra.md and docs/writing.md, each block run as written, on small models by the names there."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import electra_config

from unmask import (
    ElectraForConditionalGeneration,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    ElectraForQuestionAnswering,
    ElectraForSequenceClassification,
    ElectraTokenizer,
)
from unmask.electra.pair import ElectraPair

DOCS = Path(__file__).parents[2] / "docs"
TEXTS = ["a small rodent", "to move quickly on foot", "the fear of open spaces", "name[Alimentum]"]


def blocks(page: str) -> list[str]:
    found = re.findall(r"^( *)```python\n(.*?)^ *```", (DOCS / page).read_text(encoding="utf-8"), re.S | re.M)
    return [re.sub(rf"^{indent}", "", code, flags=re.M) for indent, code in found]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the models that the pages name."""
    torch.manual_seed(0)
    tokenizer = ElectraTokenizer.train(TEXTS, 120)
    config = electra_config(tokenizer.vocab_size)
    judge = ElectraForPreTraining(config)
    filler = ElectraForMaskedLM(config)
    models = {
        "quickstart/senses/model": ElectraForSequenceClassification(
            replace(config, labels=("animal", "motion", "feeling"))
        ),
        "quickstart/electra/model/discriminator": judge,
        "electra-small/discriminator": judge,
        "some-bert": judge,
        "some-bert-mlm": filler,
        "runs/answers/model": ElectraForConditionalGeneration(filler, judge, tokenizer, 12),
    }
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_electra(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ElectraForQuestionAnswering.from_pretrained("some-bert")
    names: dict[str, Any] = {"directory": "some-bert", "questions": ["who ?"], "contexts": [TEXTS[0]]}
    code = blocks("electra.md")
    assert len(code) == 5
    for block in code:
        if "answer(" in block:
            names["model"] = asked
        exec(compile(block, "electra.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4
    assert set(printed[:3]) <= {"animal", "motion", "feeling"}
    assert names["vectors"].shape == (3, 16)
    assert ElectraPair.from_pretrained("pair").generator.config.hidden_size == 16


def test_writing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = blocks("writing.md")
    assert len(code) == 1
    names: dict[str, Any] = {}
    exec(compile(code[0], "writing.md", "exec"), names)
    assert names["answers"].shape[0] == 1
    assert capsys.readouterr().out.startswith("[")
