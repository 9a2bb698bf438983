"""The warm-started encoder–decoder beside Transformers' `EncoderDecoderModel` of two ELECTRAs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from unmask import hub
from unmask.electra.config import ElectraConfig
from unmask.electra.decoding import CachedDecoder
from unmask.electra.encoder_decoder import EncoderDecoderConfig, EncoderDecoderModel
from unmask.electra.heads import ElectraModel
from unmask.electra.model import ElectraForMaskedLM
from unmask.electra.pair import ElectraPair
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.nn.ragged import Layout

START, END = 2, 3
SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "embedding_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}
IDS = torch.tensor([[2, 7, 9, 30, 3], [2, 8, 3, 0, 0]])
MASK = (IDS != 0).long()
LABELS = torch.tensor([[11, 5, 6, 3], [12, 3, -100, -100]])


def theirs(directory: Path, **changes: Any) -> Any:
    """A random one of Transformers', every weight at work, saved."""
    torch.manual_seed(0)
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.ElectraConfig(**(SIZES | changes)),
        transformers.ElectraConfig(**(SIZES | changes | {"vocab_size": 41})),
        decoder_start_token_id=START,
        pad_token_id=0,
        eos_token_id=END,
    )
    model = transformers.EncoderDecoderModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    model.save_pretrained(directory)
    return model.eval()


@pytest.fixture
def ours() -> EncoderDecoderModel:
    torch.manual_seed(1)
    shape = ElectraConfig(**SIZES)
    config = EncoderDecoderConfig(
        encoder=shape, decoder=shape, decoder_start_token_id=START, eos_token_id=END
    )
    model = EncoderDecoderModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


@pytest.mark.parametrize("embedding_size", [8, 16])
def test_it_agrees_with_transformers_there_and_back(embedding_size: int, tmp_path: Path) -> None:
    reference = theirs(tmp_path / "theirs", embedding_size=embedding_size)
    model = EncoderDecoderModel.from_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        wanted = reference(input_ids=IDS, attention_mask=MASK, labels=LABELS)
        found = model(IDS, MASK, labels=LABELS)
    counted = LABELS >= 0  # Transformers does not see padding in targets; nothing is asked there
    torch.testing.assert_close(found.logits[counted], wanted.logits[counted], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.loss, wanted.loss, atol=1e-4, rtol=1e-4)
    model.save_pretrained(tmp_path / "again")
    before, after = (load_file(tmp_path / name / hub.WEIGHTS) for name in ("theirs", "again"))
    assert before.keys() == after.keys()
    again = transformers.EncoderDecoderModel.from_pretrained(tmp_path / "again").eval()
    with torch.no_grad():
        torch.testing.assert_close(
            again(input_ids=IDS, attention_mask=MASK, labels=LABELS).logits, wanted.logits
        )


@pytest.mark.parametrize("beams", [1, 3])
def test_it_writes_what_transformers_writes(beams: int, tmp_path: Path) -> None:
    reference = theirs(tmp_path)
    model = EncoderDecoderModel.from_pretrained(tmp_path)
    options = {"max_new_tokens": 8, "num_beams": beams}
    wanted = reference.generate(input_ids=IDS, attention_mask=MASK, do_sample=False, **options)
    found = model.generate(IDS, MASK, **options)
    assert isinstance(found, torch.Tensor)
    assert found.tolist() == wanted.tolist()


def test_gradients_agree_with_transformers(tmp_path: Path) -> None:
    reference = theirs(tmp_path)
    model = EncoderDecoderModel.from_pretrained(tmp_path)
    reference(input_ids=IDS, attention_mask=MASK, labels=LABELS).loss.backward()
    rows = [row[mask != 0] for row, mask in zip(IDS, MASK, strict=True)]
    targets = [row[row >= 0] for row in LABELS]
    loss = model.loss_sum(
        torch.cat(rows),
        Layout.of([len(r) for r in rows]),
        torch.cat(targets),
        Layout.of([len(t) for t in targets]),
    )
    (loss / 6).backward()
    wanted = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        gradient = wanted[model.hub_name(name)].grad
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, gradient, atol=2e-5, rtol=1e-3, msg=name)


def test_a_row_does_not_depend_on_the_others(ours: EncoderDecoderModel) -> None:
    together = ours.generate([[2, 7, 9, 30, 3], [2, 8, 3]], max_new_tokens=6, return_scores=True)
    alone = ours.generate([[2, 8, 3]], max_new_tokens=6, return_scores=True)
    length = alone.sequences.shape[1]
    assert together.sequences[1, :length].tolist() == alone.sequences[0].tolist()
    torch.testing.assert_close(together.token_scores[1, :length], alone.token_scores[0])


def test_stepping_advancing_and_going_back_give_the_same_logits(ours: EncoderDecoderModel) -> None:
    layout = Layout.of([5, 3])
    with torch.inference_mode():
        source = ours.encoder(torch.tensor([2, 7, 9, 30, 3, 2, 8, 3]), layout)
        ids = torch.tensor([[2, 5, 6], [2, 9, 11]])
        stepped = CachedDecoder(ours, source, layout, 6)
        one_by_one = torch.stack([stepped.step(ids[:, place]) for place in range(3)], 1)
        at_once = CachedDecoder(ours, source, layout, 6)
        torch.testing.assert_close(at_once.advance(ids), one_by_one)
        # Row 0 goes back by two, row 1 by one; rows change places, and each is fed what it was fed before.
        at_once.rewind(torch.tensor([1, 2]))
        at_once.select(torch.tensor([1, 0, 1]))
        more = at_once.advance(torch.tensor([[11, 0], [5, 6], [11, 0]]), torch.tensor([1, 2, 1]))
    torch.testing.assert_close(more[0, 0], one_by_one[1, 2])
    torch.testing.assert_close(more[1], one_by_one[0, 1:])
    torch.testing.assert_close(more[2, 0], one_by_one[1, 2])


def test_copying_writes_what_greedy_decoding_writes(ours: EncoderDecoderModel) -> None:
    rows = [[2, 7, 9, 30, 7, 9, 3], [2, 8, 8, 3]]
    plain = ours.generate(rows, max_new_tokens=10)
    assert ours.generate(rows, max_new_tokens=10, speculate=True).tolist() == plain.tolist()


def test_both_halves_start_from_the_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = ElectraConfig(**SIZES | {"vocab_size": 130})
    pair = ElectraPair.fresh(shape, shape)
    pair.save_pretrained(tmp_path)
    tokenizer = ElectraTokenizer.train(["a small text to train a vocabulary on"] * 3, 110)
    tokenizer.save_pretrained(tmp_path)
    model = EncoderDecoderModel.from_electra(tmp_path)
    assert model.config.decoder_start_token_id == tokenizer.cls_token_id
    assert model.config.eos_token_id == tokenizer.sep_token_id
    start = ElectraModel.from_pretrained(tmp_path / "discriminator").encoder.state_dict()
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, start[name]), name
    decoder = model.decoder.state_dict()
    taken = {name.replace(".own.", "."): tensor for name, tensor in decoder.items() if ".cross." not in name}
    assert taken.keys() == start.keys()
    assert all(torch.equal(taken[name], start[name]) for name in start)
    head = ElectraForMaskedLM.from_pretrained(tmp_path / "generator").generator_head
    assert torch.equal(model.head.dense.weight, head.dense.weight)


def test_a_bert_to_bert_directory_loads(tmp_path: Path) -> None:
    sizes = {name: value for name, value in SIZES.items() if name != "embedding_size"}
    torch.manual_seed(0)
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.BertConfig(**sizes),
        transformers.BertConfig(**sizes),
        decoder_start_token_id=START,
        pad_token_id=0,
        eos_token_id=END,
    )
    reference = transformers.EncoderDecoderModel(config).eval()
    reference.save_pretrained(tmp_path)
    model = EncoderDecoderModel.from_pretrained(tmp_path)
    with torch.no_grad():
        wanted = reference(input_ids=IDS, attention_mask=MASK, labels=LABELS).logits
        found = model(IDS, MASK, labels=LABELS).logits
    torch.testing.assert_close(found[LABELS >= 0], wanted[LABELS >= 0], atol=1e-4, rtol=1e-4)


def test_what_is_refused(ours: EncoderDecoderModel, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    with pytest.raises(UserError, match="20 positions"):
        ours.generate(IDS, MASK, max_new_tokens=30)
    with pytest.raises(UserError, match="only halves of one width"):
        EncoderDecoderConfig(
            encoder=ElectraConfig(**SIZES),
            decoder=ElectraConfig(**SIZES | {"hidden_size": 32}),
            decoder_start_token_id=START,
            eos_token_id=END,
        )
    ours.save_pretrained(tmp_path)
    values = hub.read_json(tmp_path / hub.CONFIG)
    values["decoder_start_token_id"] = None
    hub.write_json(tmp_path / hub.CONFIG, values)
    with pytest.raises(UserError, match="decoder_start_token_id is None"):
        EncoderDecoderModel.from_pretrained(tmp_path)
