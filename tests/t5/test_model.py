"""Agreement with Transformers on random weights: logits, losses, gradients, decoded ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unmask import T5Config, T5EncoderModel, T5ForConditionalGeneration
from unmask.nn.ragged import Layout
from unmask.t5.model import IGNORED_LABEL

Reference = Callable[..., Any]
Saved = Callable[[Any], Path]

LENGTHS = [9, 3, 14, 1, 6]
TARGET_LENGTHS = [4, 11, 1, 6, 7]


def padded(lengths: list[int], side: str, fill: int, vocabulary: int = 61) -> tuple[Tensor, Tensor]:
    """Random ids, `fill` on the padding, and their mask."""
    torch.manual_seed(len(side) + sum(lengths))
    places = torch.arange(max(lengths)).expand(len(lengths), -1)
    limits = torch.tensor(lengths)[:, None]
    mask = places < limits if side == "right" else places >= max(lengths) - limits
    return torch.randint(2, vocabulary, mask.shape).masked_fill(~mask, fill), mask.long()


def relative_error(found: Tensor, wanted: Tensor) -> float:
    return ((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12)).item()


@pytest.mark.parametrize("target_side", ["left", "right"])
@pytest.mark.parametrize("source_side", ["left", "right"])
def test_logits_loss_and_gradients(
    variant: str, source_side: str, target_side: str, reference: Reference, saved: Saved
) -> None:
    theirs = reference(variant)
    ours = T5ForConditionalGeneration.from_pretrained(saved(theirs))
    ids, mask = padded(LENGTHS, source_side, 0, theirs.config.vocab_size)
    labels, _ = padded(TARGET_LENGTHS, target_side, IGNORED_LABEL)
    expected = theirs(input_ids=ids, attention_mask=mask, labels=labels)
    found = ours(input_ids=ids, attention_mask=mask, labels=labels)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=1e-4)
    assert found.loss is not None
    assert abs(found.loss.item() - expected.loss.item()) < 1e-5 * expected.loss.item()
    torch.testing.assert_close(
        found.encoder_last_hidden_state,
        expected.encoder_last_hidden_state * mask[..., None],
        atol=1e-4,
        rtol=1e-4,
    )
    found.loss.backward()
    expected.loss.backward()
    wanted = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    got = {ours.hub_name(name): parameter.grad for name, parameter in ours.named_parameters()}
    assert got.keys() == wanted.keys()
    errors = {name: relative_error(got[name], wanted[name]) for name in wanted}
    assert max(errors.values()) < 1e-3, errors


def test_decoder_inputs_instead_of_labels(reference: Reference, saved: Saved) -> None:
    theirs = reference("v1.0")
    ours = T5ForConditionalGeneration.from_pretrained(saved(theirs))
    ids, mask = padded(LENGTHS, "right", 0)
    steps, _ = padded([6] * len(LENGTHS), "right", 0)
    expected = theirs(input_ids=ids, attention_mask=mask, decoder_input_ids=steps).logits
    found = ours(input_ids=ids, attention_mask=mask, decoder_input_ids=steps)
    torch.testing.assert_close(found.logits, expected, atol=1e-4, rtol=1e-4)
    assert found.loss is None


def test_inputs_longer_than_the_last_bucket(variant: str, reference: Reference, saved: Saved) -> None:
    theirs = reference(variant)
    ours = T5ForConditionalGeneration.from_pretrained(saved(theirs))
    ids, mask = padded([200, 150], "left", 0)
    labels, _ = padded([140, 160], "right", IGNORED_LABEL)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, labels=labels)
        found = ours(input_ids=ids, attention_mask=mask, labels=labels)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_greedy_ids(variant: str, side: str, reference: Reference, saved: Saved) -> None:
    theirs = reference(variant)
    ours = T5ForConditionalGeneration.from_pretrained(saved(theirs))
    ids, mask = padded(LENGTHS * 3, side, 0)

    def decode() -> tuple[Tensor, Tensor]:
        options = {"attention_mask": mask, "max_new_tokens": 16}
        return ours.generate(ids, **options), theirs.generate(ids, do_sample=False, num_beams=1, **options)

    found, expected = decode()
    assert torch.equal(found, expected)
    # Random weights hardly ever end: let a token that some rows write, sooner or later, be the end.
    rows_with = {token: int((expected == token).any(1).sum()) for token in expected.unique().tolist()}
    end = min(
        (token for token in rows_with if token), key=lambda token: abs(rows_with[token] - len(ids) // 2)
    )
    theirs.generation_config.eos_token_id = end
    ours.config = replace(ours.config, eos_token_id=end)
    found, expected = decode()
    assert torch.equal(found, expected)
    assert 0 < (expected == end).any(1).sum() < len(ids)


def test_written_ids_may_be_labels(reference: Reference, saved: Saved) -> None:
    model = T5ForConditionalGeneration.from_pretrained(saved(reference("v1.0")))
    ids, mask = padded(LENGTHS, "right", 0)
    loss = model(ids, mask, model.generate(ids, mask, max_new_tokens=4)).loss
    assert loss is not None
    loss.backward()


def test_packed_loss_is_the_padded_one(variant: str, reference: Reference, saved: Saved) -> None:
    ours = T5ForConditionalGeneration.from_pretrained(saved(reference(variant)))
    ids, mask = padded(LENGTHS, "right", 0)
    labels, label_mask = padded(TARGET_LENGTHS, "right", IGNORED_LABEL)
    loss = ours(input_ids=ids, attention_mask=mask, labels=labels).loss
    assert loss is not None
    total = ours.loss_sum(
        ids[mask.bool()],
        Layout.of(LENGTHS),
        labels[label_mask.bool()],
        Layout.of(TARGET_LENGTHS),
    )
    torch.testing.assert_close(total / sum(TARGET_LENGTHS), loss, rtol=1e-5, atol=0)
    padded_gradients = torch.autograd.grad(loss, list(ours.parameters()))
    packed_gradients = torch.autograd.grad(total / sum(TARGET_LENGTHS), list(ours.parameters()))
    for one, other in zip(packed_gradients, padded_gradients, strict=True):
        assert relative_error(one, other) < 1e-3


def test_encoder_alone(variant: str, reference: Reference, saved: Saved) -> None:
    theirs = reference(variant, "EncoderModel")
    ours = T5EncoderModel.from_pretrained(saved(theirs))
    ids, mask = padded(LENGTHS, "left", 0)
    expected = theirs(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
    found = ours(ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_encoder_of_a_whole_model(reference: Reference, saved: Saved) -> None:
    whole = reference("v1.1")
    directory = saved(whole)
    ids, mask = padded(LENGTHS, "right", 0)
    ours = T5EncoderModel.from_pretrained(directory)
    assert not any("decoder" in name for name, _ in ours.named_parameters())
    expected = whole.encoder(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
    torch.testing.assert_close(ours(ids, mask).last_hidden_state, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_stays_near(dtype: str, reference: Reference, saved: Saved) -> None:
    directory = saved(reference("v1.1"))
    ids, mask = padded(LENGTHS, "right", 0)
    labels, _ = padded(TARGET_LENGTHS, "right", IGNORED_LABEL)
    with torch.no_grad():
        wide = T5ForConditionalGeneration.from_pretrained(directory)(ids, mask, labels)
        narrow = T5ForConditionalGeneration.from_pretrained(directory, dtype=dtype)(ids, mask, labels)
    assert narrow.logits.dtype == getattr(torch, dtype)
    assert wide.loss is not None
    assert narrow.loss is not None
    assert abs(narrow.loss.item() - wide.loss.item()) < 0.05


def test_float16_does_not_overflow(reference: Reference, saved: Saved) -> None:
    """Published v1.1 weights leave float16's range in the feed-forward: 66,246 was seen (hf#5651)."""
    theirs = reference("v1.1")
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "wi_1" in name or name.endswith("wo.weight"):
                parameter.mul_(200)
    ids, mask = padded(LENGTHS, "right", 0)
    labels, _ = padded(TARGET_LENGTHS, "right", IGNORED_LABEL)
    directory = saved(theirs)
    wide = T5ForConditionalGeneration.from_pretrained(directory)
    narrow = T5ForConditionalGeneration.from_pretrained(directory, dtype="float16")
    peak = max(layer.feed_forward(torch.randn(9, 32)).abs().max().item() for layer in wide.encoder.layers)
    assert peak > torch.finfo(torch.float16).max
    assert narrow.embed(ids).dtype == torch.float32
    with torch.no_grad():
        expected, found = wide(ids, mask, labels), narrow(ids, mask, labels)
    torch.testing.assert_close(found.logits.float(), expected.logits, atol=0.03, rtol=0.03)
    written = narrow.generate(ids, mask, max_new_tokens=5)
    steps = narrow(ids, mask, decoder_input_ids=written[:, :-1]).logits
    chosen = steps.gather(2, written[:, 1:, None])[..., 0]
    assert bool((steps.amax(-1) - chosen < 0.02)[written[:, 1:] != 0].all())
    assert {parameter.dtype for parameter in narrow.float().parameters()} == {torch.float32}


def test_dropout_is_for_training_alone() -> None:
    torch.manual_seed(0)
    shape = {"vocab_size": 61, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 3}
    model = T5ForConditionalGeneration(T5Config(**shape, dropout_rate=0.5))
    ids, mask = padded(LENGTHS, "right", 0)
    labels, _ = padded(TARGET_LENGTHS, "right", IGNORED_LABEL)
    losses = [model.train()(ids, mask, labels).loss for _ in range(2)]
    assert losses[0] != losses[1]
    still = [model.eval()(ids, mask, labels).loss for _ in range(2)]
    assert still[0] == still[1]


@pytest.mark.parametrize("factor", [1.0, 0.5])
@pytest.mark.parametrize("form", ["relu", "gated-gelu"])
def test_initial_deviations(form: str, factor: float) -> None:
    """Mesh-TensorFlow's numbers, recomputed here from the sizes."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=500,
        d_model=64,
        d_kv=16,
        d_ff=256,
        num_layers=2,
        num_heads=8,
        feed_forward_proj=form,
        tie_word_embeddings=form == "relu",
        initializer_factor=factor,
    )
    model = T5ForConditionalGeneration(config)
    wanted = {
        "shared": 1.0,
        "lm_head": 64**-0.5,
        "q": (64 * 16) ** -0.5,
        "k": 64**-0.5,
        "v": 64**-0.5,
        "o": (8 * 16) ** -0.5,
        "wi": 64**-0.5,
        "wi_0": 64**-0.5,
        "wi_1": 64**-0.5,
        "wo": 256**-0.5,
        "relative_attention_bias": 64**-0.5,
    }
    seen = set()
    for name, tensor in model.hub_state().items():
        owner = name.split(".")[-2]
        seen.add(owner)
        if owner.endswith("layer_norm"):
            assert torch.equal(tensor, torch.full_like(tensor, factor))
            continue
        # The deviation of an estimated deviation is 1 / sqrt(2n) of it: five of those.
        slack = 5 / (2 * tensor.numel()) ** 0.5
        assert tensor.std().item() == pytest.approx(wanted[owner] * factor, rel=slack), name
        assert abs(tensor.mean().item()) < 5 * wanted[owner] * factor / tensor.numel() ** 0.5, name
    unused = {"wi_0", "wi_1", "lm_head"} if form == "relu" else {"wi"}
    assert seen == wanted.keys() - unused | {"layer_norm", "final_layer_norm"}


def test_first_loss_is_near_uniform() -> None:
    """Untied outputs start near log(vocabulary), not in the hundreds."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=1000, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, tie_word_embeddings=False
    )
    ids = torch.randint(2, 1000, (4, 20))
    loss = T5ForConditionalGeneration(config).eval()(ids, labels=ids).loss
    assert loss is not None
    assert loss.item() == pytest.approx(6.9, abs=1.0)
