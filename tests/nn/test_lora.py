"""Low-rank adaptation: what is computed, what trains, what is written, and that PEFT agrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unmask.electra.config import ElectraConfig
from unmask.electra.heads import (
    ElectraForMultipleChoice,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
)
from unmask.electra.model import ElectraForPreTraining
from unmask.errors import UserError
from unmask.nn.lora import LoraLinear
from unmask.nn.pretrained import PretrainedModel
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration

peft = pytest.importorskip("peft", reason="needs peft (pip install unmask[dev])")
transformers = pytest.importorskip("transformers")

IDS = torch.tensor([[2, 7, 9, 11, 3], [2, 8, 5, 6, 3]])
SETTINGS = {"rank": 4, "alpha": 6.0, "dropout": 0.0}


def electra_config(**changes: Any) -> ElectraConfig:
    sizes = {
        "vocab_size": 20,
        "embedding_size": 12,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 16,
    }
    return ElectraConfig(**(sizes | changes))


@pytest.fixture
def discriminator(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    ElectraForPreTraining(electra_config()).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def t5(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = T5Config(vocab_size=20, d_model=16, d_kv=8, num_heads=2, d_ff=24, num_layers=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    return tmp_path / "t5"


def disturb(model: nn.Module) -> None:
    """As if the adaptation and the heads had been trained."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)


def test_what_an_adapted_layer_computes() -> None:
    linear = nn.Linear(5, 3)
    layer = LoraLinear(linear, rank=2, alpha=3.0, dropout=0.0)
    x = torch.randn(7, 5)
    torch.testing.assert_close(layer(x), linear(x), rtol=0, atol=0)
    nn.init.normal_(layer.lora_b)
    change = 3.0 / 2 * layer.lora_b @ layer.lora_a
    expected = F.linear(x, linear.weight + change, linear.bias)
    torch.testing.assert_close(layer(x), expected)
    before = linear.weight.detach().clone()
    layer.eval()
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.weight, before + change)
    layer.train()
    assert torch.equal(layer.weight, before)


def test_dropout_is_on_the_input_of_the_adaptation_alone() -> None:
    layer = LoraLinear(nn.Linear(50, 3), rank=2, alpha=2.0, dropout=0.5)
    nn.init.normal_(layer.lora_b)
    x = torch.randn(7, 50)
    plain = nn.Linear.forward(layer, x)
    layer.train()
    assert not torch.allclose(layer(x), layer(x)), "other masks"
    nn.init.zeros_(layer.lora_b)
    torch.testing.assert_close(layer(x), plain, rtol=0, atol=0)


def test_what_trains(discriminator: Path) -> None:
    model = ElectraForSequenceClassification.from_pretrained(discriminator, labels=("a", "b", "c"))
    model.add_lora(["query", "value"], **SETTINGS)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    heads = {f"sequence_head.{part}.{kind}" for part in ("dense", "output") for kind in ("weight", "bias")}
    adaptation = {
        f"encoder.layers.{layer}.{part}.lora_{matrix}"
        for layer in (0, 1)
        for part in ("query", "value")
        for matrix in "ab"
    }
    assert trained == heads | adaptation


def test_an_unknown_target(discriminator: Path) -> None:
    model = ElectraForPreTraining.from_pretrained(discriminator)
    with pytest.raises(UserError, match="no layer 'quary' to adapt; did you mean 'query'"):
        model.add_lora(["quary"], **SETTINGS)


def test_inference_sees_the_adaptation(t5: Path) -> None:
    model = T5ForConditionalGeneration.from_pretrained(t5)
    model.add_lora(["all"], **SETTINGS)
    # A second time with other matrices: no engine may have kept the first.
    for _ in range(2):
        model.train()
        disturb(model)
        for module in model.modules():
            if hasattr(module, "rate"):
                module.rate = 0.0
            if hasattr(module, "dropout_rate"):
                module.dropout_rate = 0.0
        expected = model(IDS, decoder_input_ids=IDS).logits.detach()
        model.eval()
        with torch.inference_mode():
            found = model(IDS, decoder_input_ids=IDS).logits
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def saved(model: PretrainedModel, targets: list[str], base: Path, directory: Path) -> Path:
    model.add_lora(targets, **SETTINGS)
    model.train()
    disturb(model)
    model.eval()
    model.save_adapter(directory, str(base))
    return directory


HEADS: list[tuple[type[Any], Any, Any]] = [
    (ElectraForSequenceClassification, transformers.ElectraForSequenceClassification, IDS),
    (ElectraForTokenClassification, transformers.ElectraForTokenClassification, IDS),
    (ElectraForMultipleChoice, transformers.ElectraForMultipleChoice, IDS[:, None].repeat(1, 2, 1)),
]


@pytest.mark.parametrize("targets", [["query", "value"], ["all"], ["down"]])
@pytest.mark.parametrize("head", HEADS, ids=lambda head: head[0].__name__)
def test_peft_loads_an_electra_adapter(
    head: tuple[type[Any], Any, Any], targets: list[str], discriminator: Path, tmp_path: Path
) -> None:
    ours, theirs, ids = head
    labels = () if ours is ElectraForMultipleChoice else ("a", "b", "c")
    model = ours.from_pretrained(discriminator, **({"labels": labels} if labels else {}))
    adapter = saved(model, targets, discriminator, tmp_path / "adapter")
    with torch.no_grad():
        expected = model(ids).logits
        base = theirs.from_pretrained(discriminator, **({"num_labels": len(labels)} if labels else {}))
        reference = peft.PeftModel.from_pretrained(base, adapter).eval()
        torch.testing.assert_close(reference(ids).logits, expected, rtol=1e-5, atol=1e-5)
        again = ours.from_pretrained(adapter)
        torch.testing.assert_close(again(ids).logits, expected, rtol=1e-5, atol=1e-5)
    if labels:
        assert again.config.labels == labels


def test_peft_loads_a_t5_adapter(t5: Path, tmp_path: Path) -> None:
    model = T5ForConditionalGeneration.from_pretrained(t5)
    adapter = saved(model, ["query", "value"], t5, tmp_path / "adapter")
    assert json.loads((adapter / "adapter_config.json").read_text())["target_modules"] == ["q", "v"]
    with torch.no_grad():
        expected = model(IDS, labels=IDS).logits
        base = transformers.T5ForConditionalGeneration.from_pretrained(t5)
        reference = peft.PeftModel.from_pretrained(base, adapter).eval()
        torch.testing.assert_close(reference(IDS, labels=IDS).logits, expected, rtol=1e-4, atol=1e-5)
        again = T5ForConditionalGeneration.from_pretrained(adapter)
        torch.testing.assert_close(again(IDS, labels=IDS).logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}])
def test_an_adapter_that_peft_wrote(options: dict[str, bool], discriminator: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = transformers.ElectraForSequenceClassification.from_pretrained(discriminator, num_labels=3)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=6, **options)
    reference = peft.get_peft_model(base, config)
    disturb(reference)
    reference.save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "config.json").exists()
    model = ElectraForSequenceClassification.from_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        expected = reference.eval()(IDS).logits
        torch.testing.assert_close(model(IDS).logits, expected, rtol=1e-5, atol=1e-5)


def test_merged_into_a_plain_model(discriminator: Path, tmp_path: Path) -> None:
    model = ElectraForSequenceClassification.from_pretrained(discriminator, labels=("a", "b", "c"))
    saved(model, ["query", "value"], discriminator, tmp_path / "adapter")
    model.save_pretrained(tmp_path / "plain")
    reference = transformers.ElectraForSequenceClassification.from_pretrained(tmp_path / "plain").eval()
    with torch.no_grad():
        torch.testing.assert_close(reference(IDS).logits, model(IDS).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "use_dora is True, which is not supported"),
        ({"peft_type": "IA3"}, "is of peft_type 'IA3': only LORA is read"),
        ({"base_model_name_or_path": ""}, "does not say which model it adapts"),
        ({"base_model_name_or_path": "/nowhere"}, "is an adapter whose base model is not there"),
    ],
)
def test_adapters_that_cannot_be_read(
    change: dict[str, Any], message: str, discriminator: Path, tmp_path: Path
) -> None:
    model = ElectraForSequenceClassification.from_pretrained(discriminator, labels=("a", "b"))
    adapter = saved(model, ["query"], discriminator, tmp_path / "adapter")
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        ElectraForSequenceClassification.from_pretrained(adapter)


def test_an_adapter_of_another_shape(discriminator: Path, tmp_path: Path) -> None:
    model = ElectraForSequenceClassification.from_pretrained(discriminator, labels=("a", "b"))
    adapter = saved(model, ["query"], discriminator, tmp_path / "adapter")
    ElectraForPreTraining(electra_config(num_hidden_layers=1)).save_pretrained(discriminator)
    (adapter / "config.json").unlink()
    with pytest.raises(UserError, match=r"adapts the layer 'encoder\.layer\.1"):
        ElectraForSequenceClassification.from_pretrained(adapter)
