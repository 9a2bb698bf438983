"""T5 stored as int8: what is loaded is what was saved, bit by bit."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from unmask.errors import UserError
from unmask.nn.kept import Bfloat16Linear
from unmask.nn.ragged import Layout
from unmask.t5.config import T5Config
from unmask.t5.engine import engine_of
from unmask.t5.heads import T5ForSequenceClassification
from unmask.t5.model import T5EncoderModel, T5ForConditionalGeneration

SHAPE = {"vocab_size": 61, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 3}
SOURCES = torch.arange(2, 26).view(3, 8)
TARGETS = [[5, 6, 7, 1], [9, 1], [30, 31, 1]]


def made(**changes: Any) -> T5ForConditionalGeneration:
    torch.manual_seed(1)
    model = T5ForConditionalGeneration(T5Config(**(SHAPE | changes))).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    return model


def same_outputs(one: T5ForConditionalGeneration, other: T5ForConditionalGeneration) -> bool:
    beams = {"num_beams": 2, "max_new_tokens": 6, "return_scores": True}
    written, again = one.generate(SOURCES, **beams), other.generate(SOURCES, **beams)
    return (
        torch.equal(written.sequences, again.sequences)
        and torch.equal(written.sequence_scores, again.sequence_scores)
        and torch.equal(one.score(SOURCES, TARGETS), other.score(SOURCES, TARGETS))
    )


@settings(max_examples=15, deadline=None)
@given(
    d_model=st.integers(1, 40),
    d_kv=st.integers(1, 9),
    d_ff=st.integers(1, 50),
    num_heads=st.integers(1, 3),
    num_decoder_layers=st.integers(1, 2),
    kind=st.sampled_from(["t5", "mt5", "umt5"]),
    form=st.sampled_from(["relu", "gated-gelu"]),
    tied=st.booleans(),
)
def test_round_trip_of_any_shape(kind: str, form: str, tied: bool, **sizes: int) -> None:
    model = made(
        **sizes, num_layers=1, model_type=kind, feed_forward_proj=form, tie_word_embeddings=tied
    ).quantize()
    with TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        loaded = T5ForConditionalGeneration.from_pretrained(directory)
        assert loaded.is_int8 and not any(p.requires_grad for p in loaded.parameters())
        assert loaded.config == model.config
        before, after = model.state_dict(), loaded.state_dict()
        assert {name: t.dtype for name, t in before.items()} == {name: t.dtype for name, t in after.items()}
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
        assert same_outputs(model, loaded)


def test_matrices_take_a_quarter(tmp_path: Path) -> None:
    model = made(d_model=256, d_ff=1024, d_kv=64, num_heads=4)
    for name, one in (
        ("float32", model),
        ("int8", made(d_model=256, d_ff=1024, d_kv=64, num_heads=4).quantize()),
    ):
        one.save_pretrained(tmp_path / name)
    embedding = model.embedding.weight.nbytes
    sizes = [
        (tmp_path / name / "model.safetensors").stat().st_size - embedding for name in ("float32", "int8")
    ]
    # Of a tied model int8 also keeps the output matrix, as one of its own.
    assert 0.25 < (sizes[1] - embedding / 4) / sizes[0] < 0.27


@pytest.mark.parametrize("form", ["relu", "gated-gelu"])
def test_kept_products(form: str, tmp_path: Path) -> None:
    """What is kept in bfloat16 is so with its fellows, nearer to float32, and the same when it is loaded again."""
    wide = made(feed_forward_proj=form)
    names = [name for product in _folded(form).products().values() for name in product]
    keep = ("decoder.layers.1.cross_attention.key", "encoder.layers.0.attention.query", "output")
    some, whole = (
        made(feed_forward_proj=form).quantize(keep=keep),
        made(feed_forward_proj=form).quantize(names),
    )
    kept = {name for name, module in some.named_modules() if isinstance(module, Bfloat16Linear)}
    assert kept == {
        "decoder.layers.1.cross_attention.key",
        "decoder.layers.1.cross_attention.value",
        *(f"encoder.layers.0.attention.{part}" for part in ("query", "key", "value")),
        "output",
    }
    with torch.inference_mode():
        expected = wide(SOURCES, decoder_input_ids=SOURCES).logits
        errors = [
            float((model(SOURCES, decoder_input_ids=SOURCES).logits - expected).square().mean())
            for model in (whole, some, made(feed_forward_proj=form).quantize())
        ]
    assert 4 * errors[0] < errors[1] < errors[2]
    for model in (some, whole):
        model.save_pretrained(tmp_path)
        loaded = T5ForConditionalGeneration.from_pretrained(tmp_path)
        assert same_outputs(model, loaded)
    narrow = T5ForConditionalGeneration.from_pretrained(tmp_path, dtype="float32")
    assert torch.equal(narrow.output.weight, whole.output.weight)
    with pytest.raises(UserError, match=r"has no linear layer 'outputs'; did you mean 'output'\?"):
        made().quantize(keep=["outputs"])


def test_the_engine_multiplies_what_is_kept_in_bfloat16() -> None:
    wide, int8, kept = made(), made().quantize(), made()
    kept.quantize([name for name, module in kept.named_modules() if isinstance(module, torch.nn.Linear)])
    layout = Layout.of([8, 8, 8], torch.device("cpu"))
    with torch.inference_mode():
        expected = wide.encode(SOURCES.flatten(), layout)
        errors = [
            float((engine_of(model).encode(SOURCES.flatten(), layout) - expected).square().mean())
            for model in (kept, int8)
        ]
    assert 4 * errors[0] < errors[1]


def test_so_does_its_decoder() -> None:
    wide, int8, kept = (made(d_model=64, d_kv=16, d_ff=128) for _ in range(3))
    int8.quantize()
    # All but the encoder, which is int8's in both.
    decoders = [name for product in _folded_names(kept) for name in product if not name.startswith("encoder")]
    kept.quantize(decoders)
    sources = torch.randint(2, 61, (60, 6), generator=torch.Generator().manual_seed(4))
    errors = []
    for model in (kept, int8):
        found = model.generate(sources, max_new_tokens=1, return_scores=True)
        expected = wide.score(sources, found.sequences[:, 1:].tolist())
        errors.append(float((found.sequence_scores - expected).square().mean()))
    assert 2 * errors[0] < errors[1], errors


def _folded_names(model: T5ForConditionalGeneration) -> list[list[str]]:
    model.fold()
    return list(model.products().values())


def _folded(form: str) -> T5ForConditionalGeneration:
    model = made(feed_forward_proj=form)
    model.fold()
    return model


def test_folding_computes_the_same() -> None:
    assert torch.allclose(_folded("relu").score(SOURCES, TARGETS), made().score(SOURCES, TARGETS), atol=1e-4)


def test_another_type_dequantizes(tmp_path: Path) -> None:
    int8 = made().quantize()
    int8.save_pretrained(tmp_path)
    assert same_outputs(int8, T5ForConditionalGeneration.from_pretrained(tmp_path, dtype="int8"))
    wide = T5ForConditionalGeneration.from_pretrained(tmp_path, dtype="float32")
    assert not wide.is_int8 and wide.config.scale_decoder_outputs
    layer = wide.decoder.layers[1].cross_attention.key
    assert torch.equal(layer.weight, int8.decoder.layers[1].cross_attention.key.weight)
    # Close to the int8 model, whose activations alone are quantised beside it.
    assert torch.allclose(wide.score(SOURCES, TARGETS), int8.score(SOURCES, TARGETS), rtol=0.05)
    narrow = T5ForConditionalGeneration.from_pretrained(tmp_path, dtype="bfloat16")
    assert {parameter.dtype for parameter in narrow.parameters()} == {torch.bfloat16}


def test_encoder_and_heads_from_it(tmp_path: Path) -> None:
    int8 = made().quantize()
    int8.save_pretrained(tmp_path)
    encoder = T5EncoderModel.from_pretrained(tmp_path)
    expected = T5EncoderModel.from_pretrained(tmp_path, dtype="float32")(SOURCES).last_hidden_state
    assert encoder.is_int8
    assert torch.allclose(encoder(SOURCES).last_hidden_state, expected, atol=0.3)
    with pytest.raises(UserError, match=r'to train a new head on them, load with dtype="float32"'):
        T5ForSequenceClassification.from_pretrained(tmp_path, labels=("a", "b", "c"))
    head = T5ForSequenceClassification.from_pretrained(tmp_path, dtype="float32", labels=("a", "b", "c"))
    assert all(parameter.requires_grad for parameter in head.parameters())


def test_a_file_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    made().quantize().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    for part in ("int8", "scale"):
        name = f"encoder.block.0.layer.0.SelfAttention.q.{part}"
        save_file({key: tensor for key, tensor in whole.items() if key != name}, file)
        for dtype in (None, "float32"):
            with pytest.raises(
                UserError, match=r"lacks the tensor 'encoder\.block\.0\.layer\.0\.SelfAttention\.q\."
            ):
                T5ForConditionalGeneration.from_pretrained(tmp_path, dtype=dtype)


def test_transformers_refuses_it(tmp_path: Path) -> None:
    """Otherwise it would draw the weights that it does not find."""
    made().quantize().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="quant_method"):
        transformers.T5ForConditionalGeneration.from_pretrained(tmp_path)
