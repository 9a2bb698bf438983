"""What low precision changes of an ELECTRA's predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from unmask.cli import _run
from unmask.electra.config import ElectraConfig
from unmask.electra.heads import ElectraForSequenceClassification, ElectraForTokenClassification
from unmask.electra.model import ElectraForMaskedLM, ElectraForPreTraining
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.export.cost import Sample
from unmask.export.quantization import quantize

TEXTS = [f"a {'small tool and some '[: number % 19]}thing that is {number}" for number in range(40)]
LABELS = ("no", "yes", "maybe")
MODELS = [ElectraForSequenceClassification, ElectraForTokenClassification, ElectraForPreTraining]


@pytest.fixture(scope="module")
def tokenizer(documents: list[str]) -> ElectraTokenizer:
    return ElectraTokenizer.train(documents[:300], 300)


def saved(kind: Any, tokenizer: ElectraTokenizer, directory: Path, **changes: Any) -> Path:
    torch.manual_seed(2)
    sizes: dict[str, Any] = {
        "vocab_size": 300,
        "embedding_size": 16,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 24,
        "initializer_range": 0.3,
    }
    model = kind(ElectraConfig(**(sizes | {"labels": LABELS} | changes))).eval()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("kind", MODELS)
def test_changes_are_those_of_the_model_that_is_written(
    kind: Any, tokenizer: ElectraTokenizer, tmp_path: Path
) -> None:
    directory = saved(kind, tokenizer, tmp_path / "model")
    found = quantize(directory, tmp_path / "int8", sample=Sample(TEXTS))
    errors = {product.name: product.error for product in found.products}
    assert set(errors) == set(kind.from_pretrained(directory).products())
    assert all(error is not None and 0.001 < error < 0.05 for error in errors.values())
    assert not any(product.kept for product in found.products)
    same: list[bool] = []
    change = size = 0.0
    wide, narrow = kind.from_pretrained(directory), kind.from_pretrained(tmp_path / "int8")
    with torch.inference_mode():
        for text in TEXTS:
            ids = tokenizer.encode(text, truncation=True, max_length=24, return_tensors="pt")
            one, other = wide(ids).logits[0], narrow(ids).logits[0]
            change += float((one - other).square().sum())
            size += float(one.square().sum())
            binary = kind is ElectraForPreTraining
            equal = (one > 0) == (other > 0) if binary else one.argmax(-1) == other.argmax(-1)
            same += equal.flatten().tolist()
    cost = found.costs[-1]
    assert cost.identical == pytest.approx(sum(same) / len(same))
    assert cost.logits == pytest.approx((change / size) ** 0.5, rel=1e-3)
    assert cost.loss is None and found.costs[0].logits == 0
    kept = quantize(directory, tmp_path / "kept", sample=Sample(TEXTS), keep=["*"])
    assert all(product.kept for product in kept.products)
    assert kept.costs[-1].logits is not None and cost.logits is not None
    assert 2 * kept.costs[-1].logits < cost.logits == kept.costs[1].logits


@pytest.mark.parametrize("pairs", [False, True])
def test_a_classifiers_loss(tokenizer: ElectraTokenizer, tmp_path: Path, pairs: bool) -> None:
    directory = saved(ElectraForSequenceClassification, tokenizer, tmp_path / "model")
    targets = [LABELS[number % 3] for number in range(len(TEXTS))]
    seconds = TEXTS[::-1] if pairs else None
    found = quantize(directory, tmp_path / "narrow", dtype="bfloat16", sample=Sample(TEXTS, targets, seconds))
    for cost, place in zip(found.costs, (directory, tmp_path / "narrow"), strict=True):
        dtype = "float32" if place is directory else "bfloat16"
        model = ElectraForSequenceClassification.from_pretrained(place, dtype=dtype)
        with torch.inference_mode():
            batch = tokenizer(TEXTS, seconds, truncation=True, max_length=24)
            logits = model(
                input_ids=batch["input_ids"], token_type_ids=batch["token_type_ids"]
            ).logits.float()
        expected = F.cross_entropy(logits, torch.arange(len(TEXTS)) % 3)
        assert cost.loss is not None
        assert cost.loss.loss == pytest.approx(expected.item(), abs=1e-3)
    with pytest.raises(UserError, match="the rows have the label 'perhaps', the model knows no, yes, maybe"):
        quantize(directory, tmp_path / "x", sample=Sample(["a"], ["perhaps"]))


def test_refusals(tokenizer: ElectraTokenizer, tmp_path: Path) -> None:
    pair = tmp_path / "pair"
    saved(ElectraForMaskedLM, tokenizer, pair / "generator")
    one = saved(ElectraForSequenceClassification, tokenizer, tmp_path / "one", labels=("score",))
    for directory, message in (
        (pair, "is a pair: load it in Python"),
        (pair / "generator", "holds ElectraForMaskedLM, of which no predictions are measured"),
        (one, "gives one number for each text"),
    ):
        with pytest.raises(UserError, match=message):
            quantize(directory, tmp_path / "x")


def test_command(tokenizer: ElectraTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = saved(ElectraForPreTraining, tokenizer, tmp_path / "model")
    (tmp_path / "texts.csv").write_text("source\n" + "\n".join(TEXTS) + "\n")
    command = ["quantize", str(directory), "--out", str(tmp_path / "int8"), "--threads", "1"]
    assert _run([*command, "--on", str(tmp_path / "texts.csv")]) == 0
    printed = capsys.readouterr().out
    assert "40 rows" in printed and "change of the logits" in printed
    assert "Product by product" in (tmp_path / "int8" / "report.html").read_text()
