"""ELECTRA stored as int8: what is loaded is what was saved, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from unmask.electra.heads import ElectraForSequenceClassification
from unmask.electra.model import ElectraForMaskedLM, ElectraForPreTraining
from unmask.electra.pair import ElectraPair
from unmask.electra.writer import ElectraForConditionalGeneration
from unmask.errors import UserError
from unmask.nn.kept import Bfloat16Linear

IDS = torch.arange(24).view(2, 12) + 5


@pytest.mark.parametrize(
    "kind", [ElectraForMaskedLM, ElectraForPreTraining, ElectraForSequenceClassification]
)
@pytest.mark.parametrize("embedding_size", [8, 16])
def test_round_trip(
    kind: Any, embedding_size: int, saved: Callable[..., tuple[Any, Path]], tmp_path: Path
) -> None:
    _, directory = saved(kind.architecture, embedding_size=embedding_size)
    int8 = kind.from_pretrained(directory, dtype="int8")
    int8.save_pretrained(tmp_path / "int8")
    loaded = kind.from_pretrained(tmp_path / "int8")
    wide = kind.from_pretrained(tmp_path / "int8", dtype="float32")
    assert loaded.is_int8 and not wide.is_int8
    with torch.inference_mode():
        assert torch.equal(loaded(IDS).logits, int8(IDS).logits)
        assert torch.allclose(wide(IDS).logits, int8(IDS).logits, atol=0.2)
    stored = load_file(tmp_path / "int8" / "model.safetensors")
    assert stored["electra.encoder.layer.1.intermediate.dense.int8"].dtype == torch.int8


def test_kept_products(saved: Callable[..., tuple[Any, Path]], tmp_path: Path) -> None:
    _, directory = saved("ElectraForPreTraining")
    model = ElectraForPreTraining.from_pretrained(directory)
    names = [name for product in model.products().values() for name in product]
    model.quantize(keep=names).save_pretrained(tmp_path / "kept")
    loaded = ElectraForPreTraining.from_pretrained(tmp_path / "kept")
    some = ElectraForPreTraining.from_pretrained(directory).quantize(keep=["encoder.layers.1.key"])
    kept = [name for name, module in some.named_modules() if isinstance(module, Bfloat16Linear)]
    assert kept == [f"encoder.layers.1.{part}" for part in ("query", "key", "value")]
    with torch.inference_mode():
        expected = ElectraForPreTraining.from_pretrained(directory)(IDS).logits
        int8 = ElectraForPreTraining.from_pretrained(directory, dtype="int8")(IDS).logits
        assert torch.equal(loaded(IDS).logits, model(IDS).logits)
        assert 3 * (loaded(IDS).logits - expected).abs().max() < (int8 - expected).abs().max()
        by_engine = some(IDS).logits
    by_layers = some(IDS).logits
    assert torch.allclose(by_engine, by_layers, atol=0.05)


def test_a_new_head_is_refused(saved: Callable[..., tuple[Any, Path]], tmp_path: Path) -> None:
    _, directory = saved("ElectraForPreTraining")
    ElectraForPreTraining.from_pretrained(directory, dtype="int8").save_pretrained(tmp_path / "int8")
    with pytest.raises(UserError, match="holds int8 weights, and no 'sequence_head"):
        ElectraForSequenceClassification.from_pretrained(tmp_path / "int8", labels=("a", "b", "c"))


def test_pairs(saved: Callable[..., tuple[Any, Path]], tmp_path: Path) -> None:
    """A pair is written with as int8, and trained as float32."""
    for name, kind in (("generator", ElectraForMaskedLM), ("discriminator", ElectraForPreTraining)):
        _, directory = saved(kind.architecture)
        kind.from_pretrained(directory, dtype="int8").save_pretrained(tmp_path / "pair" / name)
    pair = ElectraPair.from_pretrained(tmp_path / "pair")
    assert not pair.generator.is_int8 and not pair.discriminator.is_int8

    class Words:
        vocab_size = 40

    writer = ElectraForConditionalGeneration.from_pretrained(tmp_path / "pair", tokenizer=Words())
    assert writer.generator.is_int8 and writer.discriminator.is_int8
