"""Transformers loads what we export, by its Auto classes, and computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub import ModelCard as HubCard

from unmask import hub
from unmask.cli import _run
from unmask.electra.config import ElectraConfig
from unmask.electra.heads import ElectraForSequenceClassification
from unmask.electra.model import ElectraForPreTraining
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.export.transformers import export
from unmask.report.card import CARD, ModelCard, write_card
from unmask.t5.byte_tokenizer import ByT5Tokenizer
from unmask.t5.model import T5ForConditionalGeneration

Saved = Callable[[str], Path]
SIZES = {"embedding_size": 16, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2}
TEXTS = ["the river rose in the night", "under water"]


def electra(directory: Path, kind: type = ElectraForPreTraining, **settings: object) -> Path:
    torch.manual_seed(0)
    tokenizer = ElectraTokenizer.train([*TEXTS, "by morning"] * 3, 120)
    config = ElectraConfig(vocab_size=tokenizer.vocab_size, **SIZES, **settings)  # type: ignore[arg-type]
    kind(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def test_the_card_says_how_it_was_made_and_what_the_run_knew(
    saved: Saved, tmp_path: Path, use_of: Callable[[Path], None]
) -> None:
    directory = saved("v1.0")
    export(directory, tmp_path / "without")
    text = (tmp_path / "without" / CARD).read_text()
    assert "\n# " in text and str(tmp_path) not in text
    use_of(tmp_path / "without")
    run = ModelCard(
        title="A writer",
        summary="What it is.",
        tags=["unmask", "t5"],
        base_model="google/t5-small",
        license="mit",
        sections={"Scores": [("validation", "0.9")]},
        use="# runs it\nunmask fill MODEL",
    )
    write_card(directory / CARD, run)
    export(directory, tmp_path / "plain")
    read = HubCard.load(tmp_path / "plain" / CARD)
    assert read.data.to_dict() == {
        "base_model": "google/t5-small",
        "library_name": "transformers",
        "license": "mit",
        "tags": ["unmask", "t5", "transformers"],
    }
    headings = [line for line in read.text.splitlines() if line.startswith("#")]
    name = f"{directory.parent.name}/model"
    assert headings == [
        f"# {name} as a directory of Transformers",
        "## Export",
        "## Use",
        "## A writer",
        "### Scores",
        "### Use",
        "# runs it",
    ]
    assert "| validation | 0.9 |" in read.text
    (directory / CARD).write_text("---\n- no: [metadata\n---\n# Mine\n")
    export(directory, tmp_path / "other")
    assert "## Mine" in (tmp_path / "other" / CARD).read_text()


@pytest.mark.parametrize("variant", ["v1.0", "v1.1", "mT5"])
def test_t5(variant: str, saved: Saved, tmp_path: Path) -> None:
    directory = saved(variant)
    found = export(directory, tmp_path / "plain")
    theirs = getattr(transformers, found.auto_class).from_pretrained(tmp_path / "plain")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "plain")
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    assert batch["input_ids"][0].tolist() == ByT5Tokenizer.from_pretrained(directory).encode(TEXTS[0])
    ours, labels = T5ForConditionalGeneration.from_pretrained(directory), batch["input_ids"]
    with torch.no_grad():
        expected = ours(batch["input_ids"], batch["attention_mask"], labels=labels).logits
        logits = theirs(**batch, labels=labels).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_electra_from_int8_weights(tmp_path: Path) -> None:
    directory = electra(tmp_path / "model")
    ElectraForPreTraining.from_pretrained(directory, dtype="int8").save_pretrained(directory)
    found = export(directory, tmp_path / "plain")
    assert found.auto_class == "AutoModelForPreTraining"
    theirs = transformers.AutoModelForPreTraining.from_pretrained(tmp_path / "plain")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "plain")
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    ours = ElectraForPreTraining.from_pretrained(directory, dtype="float32")
    with torch.no_grad():
        expected = ours(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]).logits
        logits = theirs(**batch).logits
    seen = batch["attention_mask"] != 0
    torch.testing.assert_close(logits[seen], expected[seen], rtol=1e-4, atol=1e-4)
    assert ElectraTokenizer.from_pretrained(directory).encode(TEXTS[0]) == batch["input_ids"][0].tolist()


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    linear = electra(tmp_path / "linear", ElectraForSequenceClassification, classification_head="linear")
    with pytest.raises(UserError, match="one linear layer"):
        export(linear, tmp_path / "plain")
    cut = electra(tmp_path / "cut")
    config = hub.read_json(cut / "tokenizer_config.json")
    hub.write_json(cut / "tokenizer_config.json", config | {"segmenter": "module:cut"})
    with pytest.raises(UserError, match="segmenter 'module:cut'"):
        export(cut, tmp_path / "plain")
    pair = tmp_path / "pair"
    for half in ("generator", "discriminator"):
        electra(pair / half)
    with pytest.raises(UserError, match="is a pair: export one of its models"):
        export(pair, tmp_path / "plain")
    assert not (tmp_path / "plain").exists()
    good = pair / "discriminator"
    assert _run(["export", "transformers", str(good), "--out", str(tmp_path / "plain")]) == 0
    assert "AutoModelForPreTraining" in capsys.readouterr().out
    assert _run(["export", "transformers", str(good), "--out", str(tmp_path / "plain")]) == 2
    assert "--overwrite" in capsys.readouterr().err
