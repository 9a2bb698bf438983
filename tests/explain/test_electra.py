"""ELECTRA in plain operations is ELECTRA; its shares add up; maps and judgements are the model's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmask.electra.config import ElectraConfig
from unmask.electra.heads import ElectraForSequenceClassification
from unmask.electra.model import ElectraBackbone, ElectraForMaskedLM, ElectraForPreTraining
from unmask.electra.plain import encode
from unmask.errors import UserError
from unmask.explain import electra

pytest.importorskip("captum", reason="needs the extra explain")

IDS = [2, 11, 30, 7, 25, 3]


def small(kind: type[ElectraBackbone], **changes: object) -> ElectraBackbone:
    sizes = {
        "vocab_size": 40,
        "embedding_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 20,
        "labels": ("bad", "fair", "good"),
    }
    torch.manual_seed(0)
    model = kind(ElectraConfig(**(sizes | changes))).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


@pytest.mark.parametrize("form", [{}, {"embedding_size": 16, "hidden_act": "gelu_new"}])
def test_plain_is_the_model(form: dict[str, object]) -> None:
    model = small(ElectraForPreTraining, **form)
    ids, mask = torch.tensor([IDS, [2, 9, 3, 0, 0, 0]]), torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0]])
    types = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 1, 0, 0, 0]])
    found = encode(model.encoder, model.encoder.embeddings.token(ids), mask, types)
    with torch.no_grad():
        expected = model.encode(model.pack(ids, mask, types))
    torch.testing.assert_close(found[mask.bool()], expected, atol=1e-5, rtol=1e-4)


def test_shares_of_a_label_add_up() -> None:
    model = small(ElectraForSequenceClassification)
    assert isinstance(model, ElectraForSequenceClassification)
    logits = model([IDS]).logits[0].detach()
    for label in (0, 2):
        found = electra.attribute(
            model, IDS, electra.label_logit(model, label), padding=0, keep=[2, 3], steps=48
        )
        assert found.output == pytest.approx(logits[label].item(), abs=1e-4)
        assert found.shares.sum() - (found.output - found.baseline_output) == pytest.approx(
            found.delta, abs=1e-4
        )
        assert abs(found.delta) < 0.02
        assert found.shares[0] == found.shares[-1] == 0 and np.abs(found.shares[1:-1]).min() > 0
    np.testing.assert_allclose(electra.label_lens(model, IDS)[-1], logits.numpy(), atol=1e-5)


def test_suspicion_is_the_discriminators() -> None:
    model = small(ElectraForPreTraining)
    assert isinstance(model, ElectraForPreTraining)
    logits = model([IDS]).logits[0].detach()
    found = electra.suspicion(model, IDS)
    assert found.shape == (2, 6)
    np.testing.assert_allclose(found[-1], logits.sigmoid().numpy(), atol=1e-5)
    shares = electra.attribute(model, IDS, electra.replaced_logit(model, 3), padding=0, steps=8)
    assert shares.output == pytest.approx(logits[3].item(), abs=1e-4)


def test_proposals_are_the_generators() -> None:
    model = small(ElectraForMaskedLM)
    assert isinstance(model, ElectraForMaskedLM)
    expected = model([IDS]).logits[0, 2].detach().softmax(-1)
    np.testing.assert_allclose(electra.token_lens(model, IDS, 2)[-1], expected.numpy(), atol=1e-5)
    found = electra.attribute(model, IDS, electra.token_log_probability(model, 2, 9), padding=0, steps=8)
    assert found.output == pytest.approx(expected[9].log().item(), abs=1e-4)


def test_maps_and_heads() -> None:
    model = small(ElectraForPreTraining)
    assert isinstance(model, ElectraForPreTraining)
    maps = electra.attention(model, IDS)
    assert maps.shape == (2, 2, 6, 6)
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-5)
    readout = electra.replaced_logit(model, 3)
    falls = electra.head_importance(model, IDS, readout)
    before = model([IDS]).logits[0, 3].item()
    with torch.no_grad():
        model.encoder.layers[1].attention_output.weight[:, :8] = 0
    assert falls[1, 0] == pytest.approx(before - model([IDS]).logits[0, 3].item(), abs=1e-4)


def test_refusals() -> None:
    model = small(ElectraForSequenceClassification)
    assert isinstance(model, ElectraForSequenceClassification)
    with pytest.raises(UserError, match="label 3"):
        electra.label_logit(model, 3)
    with pytest.raises(UserError, match="empty"):
        electra.attention(model, [])
    with pytest.raises(UserError, match="id 40"):
        electra.attention(model, [40])
    with pytest.raises(UserError, match="21 tokens"):
        electra.attention(model, [5] * 21)
