"""Attributions add up, point at what was copied, and keep source and prefix apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmask.errors import UserError
from unmask.explain.t5 import (
    attention,
    attribute,
    attribute_token,
    head_importance,
    logit_lens,
    position_bias,
)
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.plain import decode, encode

pytest.importorskip("captum", reason="needs the extra explain")

END = 1
#: 5 and 9 are to be copied, 15 and 17 are not.
SOURCE = [15, 5, 17, 9, END]
TARGET = [5, 9]
#: Where in the source each stands.
PLACES = [1, 3]
COPIED = range(3, 11)


def small(**changes: object) -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"vocab_size": 24, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(**(sizes | changes))).eval()  # type: ignore[arg-type]


@torch.no_grad()
def copier(*, crossed: bool = True, remembered: bool = True) -> T5ForConditionalGeneration:
    """Built by hand: writes the source's tokens 3 to 10, each once, those with lower ids first; copies nothing else.

    Every token has a dimension of its own, dimension 30 marks what is to be copied, 31 is 1 in all. The first head of
    cross-attention looks at what is marked and writes it out; the first of the decoder's own takes back what the
    prefix has already.

    Args:
        crossed, remembered: without these the one or the other head does nothing.
    """
    model = small(num_layers=1, tie_word_embeddings=False)
    for parameter in model.parameters():
        parameter.zero_()
    for norm in (model.encoder.final_norm, model.decoder.final_norm):
        norm.weight.fill_(1)
    below, above = model.encoder.layers[0], model.decoder.layers[0]
    for norm in (below.attention_norm, below.feed_forward_norm, above.attention_norm, above.cross_norm):
        norm.weight.fill_(1)
    for token in range(24):
        model.embedding.weight[token, token] = 2.0 if token in COPIED else 1.0
        model.embedding.weight[token, 30] = 1.0 if token in COPIED else 0.0
        model.embedding.weight[token, 31] = 1.0
    above.cross_attention.query.weight[15, 31] = 4.0
    above.cross_attention.key.weight[15, 30] = 4.0
    for token in COPIED:
        preference = 1 - 0.02 * token
        for part, strength in ((above.cross_attention, 6.0 * crossed), (above.attention, -6.0 * remembered)):
            part.value.weight[token - 3, token] = 1.0
            part.output.weight[token, token - 3] = strength * preference
        model.output.weight[token, token] = 3.0
    return model


@pytest.mark.parametrize(
    "form", [{}, {"tie_word_embeddings": False, "feed_forward_proj": "gated-silu"}, {"model_type": "umt5"}]
)
def test_plain_is_the_model(form: dict[str, object]) -> None:
    model = small(**form)
    ids, mask = torch.tensor([SOURCE, [4, 1, 0, 0, 0]]), torch.tensor([[1] * 5, [1, 1, 0, 0, 0]])
    prefix = torch.tensor([[0, 4, 7], [0, 9, 3]])
    hidden = decode(model, model.embedding(prefix), encode(model, model.embedding(ids), mask), mask)
    with torch.no_grad():
        expected = model(ids, mask, decoder_input_ids=prefix).logits
    torch.testing.assert_close(hidden @ model.output_weight.T, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("form", [{}, {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}])
def test_shares_add_up(form: dict[str, object]) -> None:
    model = small(**form)
    found = attribute(model, SOURCE, TARGET, steps=96)
    total, wanted = found.source.sum(1) + found.prefix.sum(1), found.output - found.baseline_output
    np.testing.assert_allclose(total - wanted, found.delta, atol=1e-4)
    assert np.abs(found.delta).max() < 0.02 * max(1, np.abs(wanted).max())
    scores = model.score(torch.tensor([SOURCE]), [TARGET], per_token=True)[0]
    np.testing.assert_allclose(found.output, scores.numpy(), atol=1e-4)


def test_evidence_is_what_was_copied() -> None:
    model = copier()
    assert model.generate(torch.tensor([SOURCE]), max_new_tokens=2)[0].tolist() == [0, *TARGET]
    found = attribute(model, SOURCE, TARGET)
    assert found.source.argmax(1).tolist() == PLACES
    # What was written speaks against what it would write again, so for the other.
    assert found.prefix[1].argmax() == 1 and found.prefix[1, 1] > 0.1
    weights = attention(model, SOURCE, TARGET).cross[0, 0]
    assert (weights[:, PLACES].sum(1) > 0.9).all()


def test_source_and_prefix_are_apart() -> None:
    """5 stands in both: where one path is cut, its share is 0 there and stays what it was in the other's input."""
    found = attribute_token(copier(crossed=False), SOURCE, TARGET, 1)
    assert np.abs(found.source).max() == 0
    # 5 is ruled out, one of 24 that were alike.
    assert found.prefix[1] == pytest.approx(np.log(24 / 23), abs=1e-3)
    # The stream itself goes on to the output matrix: the last token alone is seen without attention.
    found = attribute_token(copier(remembered=False), SOURCE, [5, 9, 4], 2)
    assert np.abs(found.source).max() > 0.1
    assert np.abs(found.prefix[:2]).max() == 0


def test_maps_sum_to_one_and_are_those_of_the_steps() -> None:
    model, target = small(), [5, 17, 9, 20, END]
    maps = attention(model, SOURCE, target)
    assert maps.cross.shape == (2, 2, 5, 5)
    for one in (maps.encoder, maps.decoder, maps.cross):
        np.testing.assert_allclose(one.sum(-1), 1, atol=1e-5)
    assert np.triu(maps.decoder, 1).max() == 0
    for step in range(1, 5):
        until = attention(model, SOURCE, target[:step])
        np.testing.assert_allclose(until.cross[:, :, -1], maps.cross[:, :, step - 1], atol=1e-5)
        np.testing.assert_allclose(until.decoder[:, :, -1], maps.decoder[:, :, step - 1, :step], atol=1e-5)


def test_importance_is_the_cost_of_removal() -> None:
    model = copier()
    found = head_importance(model, SOURCE, TARGET)
    cost = model.score(torch.tensor([SOURCE]), [TARGET]) - copier(crossed=False).score(
        torch.tensor([SOURCE]), [TARGET]
    )
    assert found.cross.shape == found.encoder.shape == found.decoder.shape == (1, 2)
    assert found.cross[0, 0] == pytest.approx(cost.item(), abs=1e-4)
    assert found.cross[0, 0] > 1
    assert np.abs(found.cross[0, 1]) < 1e-4 and np.abs(found.encoder).max() < 1e-4


def test_last_layer_of_the_lens_is_the_output() -> None:
    model = small()
    found = logit_lens(model, SOURCE, TARGET)
    logits = model(torch.tensor([SOURCE]), decoder_input_ids=torch.tensor([[0, *TARGET[:-1]]])).logits
    assert found.likeliest.shape == (2, 2) and found.likeliest[-1].tolist() == logits[0].argmax(-1).tolist()
    scores = model.score(torch.tensor([SOURCE]), [TARGET], per_token=True)[0]
    np.testing.assert_allclose(np.log(found.target_probability[-1]), scores.numpy(), atol=1e-4)
    assert (found.likeliest_probability >= found.target_probability).all()


def test_position_bias_is_what_is_added() -> None:
    model = small()
    distances, biases = position_bias(model.encoder.position_biases[0], 6)
    added = model.encoder.biases(7, 7)[0].detach().numpy()
    np.testing.assert_allclose(biases[:, distances.tolist().index(2)], added[:, 3, 5], atol=1e-6)
    distances, _ = position_bias(model.decoder.position_biases[0], 6)
    assert distances.max() == 0


def test_refusals() -> None:
    model = small()
    with pytest.raises(UserError, match="target is empty"):
        attribute(model, SOURCE, [])
    with pytest.raises(UserError, match="id 99"):
        attention(model, [99], [1])
    with pytest.raises(UserError, match="steps is 0"):
        attribute(model, SOURCE, [3], steps=0)
