"""The encoder for inference: the same numbers as the encoder for training, whatever the batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unmask.electra import engine
from unmask.electra.config import ElectraConfig
from unmask.electra.heads import ElectraForSequenceClassification, ElectraModel
from unmask.nn.inference import ByLength
from unmask.nn.ragged import Layout

CONFIG = ElectraConfig(
    vocab_size=40,
    embedding_size=16,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=48,
    max_position_embeddings=400,
    initializer_range=0.2,
)
LENGTHS = [7, 300, 3, 7, 1, 260, 40, 3, 7]


def shaken(config: ElectraConfig, seed: int = 0) -> ElectraModel:
    """Biases and norms away from 0 and 1, where a mistake would not show."""
    torch.manual_seed(seed)
    model = ElectraModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def stream(lengths: list[int], seed: int = 0) -> tuple[Tensor, Layout, Tensor]:
    numbers = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 40, (sum(lengths),), generator=numbers)
    return ids, Layout.of(lengths), torch.randint(0, 2, (sum(lengths),), generator=numbers)


@pytest.mark.parametrize("piece", [512, 16])
@pytest.mark.parametrize(
    "changes", [{}, {"embedding_size": 32}, {"hidden_act": "relu"}, {"hidden_act": "gelu_new"}]
)
def test_agrees_with_the_encoder_as_written(
    changes: dict[str, object], piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "PIECE_TOKENS", piece)
    encoder = shaken(replace(CONFIG, **changes)).encoder  # type: ignore[arg-type]
    ids, layout, types = stream(LENGTHS)
    for some in (types, None):
        wanted = encoder(ids, layout, some)
        with torch.inference_mode():
            assert engine.engine_of(encoder) is not None
            found = encoder(ids, layout, some)
            firsts = encoder.first_tokens(ids, layout, some)
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
        torch.testing.assert_close(firsts, wanted[layout.starts], atol=1e-4, rtol=0)
    places = layout.positions + 3
    with torch.no_grad():
        found = encoder(ids, layout, types, places)
    torch.testing.assert_close(found, encoder(ids, layout, types, places), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_text_does_not_depend_on_its_batch(dtype: str) -> None:
    model = shaken(CONFIG)
    model = model.quantize() if dtype == "int8" else model
    ids, layout, types = stream(LENGTHS)
    with torch.inference_mode():
        together = model.encoder(ids, layout, types).split(LENGTHS)
        firsts = model.encoder.first_tokens(ids, layout, types)
        parts = zip(ids.split(LENGTHS), types.split(LENGTHS), LENGTHS, strict=True)
        for number, (some, segments, length) in enumerate(parts):
            alone = Layout.of([length])
            assert torch.equal(model.encoder(some, alone, segments), together[number])
            assert torch.equal(model.encoder.first_tokens(some, alone, segments)[0], firsts[number])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_weights(dtype: str) -> None:
    """What the engine gives is what the same weights give in float32, up to the product's own rounding."""
    model = shaken(CONFIG).to(getattr(torch, dtype))
    ids, layout, types = stream(LENGTHS)
    with torch.inference_mode():
        found = model.encoder(ids, layout, types)
        assert found.dtype == getattr(torch, dtype)
    wanted = model.float().encoder(ids, Layout.of(LENGTHS), types)
    error = (found.float() - wanted).norm() / wanted.norm()
    assert error <= {"bfloat16": 0.03, "float16": 0.003}[dtype]


def test_changed_weights_are_packed_anew() -> None:
    torch.manual_seed(0)
    model = ElectraForSequenceClassification(CONFIG).eval()
    with torch.no_grad():
        before = model([[5, 6, 7]]).logits
        model.encoder.layers[1].up.weight.mul_(1.5)
        after = model([[5, 6, 7]]).logits
    assert not torch.allclose(before, after, atol=1e-4)
    torch.testing.assert_close(after, model([[5, 6, 7]]).logits, atol=1e-4, rtol=0)


def test_training_does_not_use_it() -> None:
    model = shaken(CONFIG)
    assert engine.engine_of(model.encoder) is None
    with torch.no_grad():
        assert engine.engine_of(model.train().encoder) is None
        assert engine.engine_of(model.double().eval().encoder) is None
        assert engine.engine_of(model.float().encoder) is not None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=25), st.integers(1, 60))
def test_pieces_hold_every_text_once(lengths: list[int], tokens: int) -> None:
    layout = Layout.of(lengths)
    texts = ByLength.of(layout)
    assert [lengths[text] for text in texts.texts] == sorted(lengths)
    order = torch.arange(layout.total) if texts.tokens is None else texts.tokens
    wanted = [place for text in texts.texts for place in range(sum(lengths[:text]), sum(lengths[: text + 1]))]
    assert order.tolist() == wanted
    pieces = list(texts.pieces(tokens))
    assert [piece.rows.start for piece in pieces] == [0, *(piece.rows.stop for piece in pieces[:-1])]
    assert pieces[-1].rows.stop == layout.total
    found = []
    for piece in pieces:
        places = [place for group in piece.groups for place in range(group.rows.start, group.rows.stop)]
        assert places == list(range(piece.rows.stop - piece.rows.start))
        assert len(places) <= tokens or sum(group.texts for group in piece.groups) == 1
        found += [group.length for group in piece.groups for _ in range(group.texts)]
    assert found == sorted(lengths)
