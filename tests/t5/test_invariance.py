"""A text's result does not depend on its batch: same ids, same logits to the bit, in float32 and int8."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from unmask.nn.ragged import Layout
from unmask.t5.config import T5Config
from unmask.t5.decoding import T5Decoder
from unmask.t5.engine import T5Engine, engine_of
from unmask.t5.model import T5ForConditionalGeneration

SHAPE = {"vocab_size": 300, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 3}
NEW = 16


@pytest.fixture(
    scope="module",
    params=["v1.0", "v1.1", "umT5", "int8", "v1.1 in PyTorch's operations", "int8 in PyTorch's operations"],
)
def model(request: pytest.FixtureRequest) -> Iterator[T5ForConditionalGeneration]:
    """The compiled decoder where this processor can have it, and what is used elsewhere."""
    variant, _, plain = request.param.partition(" ")
    with pytest.MonkeyPatch.context() as patch:
        if plain:
            patch.setattr(T5Engine, "_fused_weights", lambda *_: None)
        yield make(variant)


def make(variant: str) -> T5ForConditionalGeneration:
    torch.manual_seed(3)
    changes = {
        "v1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        "umT5": {"feed_forward_proj": "gated-gelu", "model_type": "umt5"},
    }.get(variant, {})
    made = T5ForConditionalGeneration(T5Config(**SHAPE, **changes)).eval()
    # Sizes found by trying: what is written then differs from text to text and ends at different steps.
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif "table" in name:
                parameter.normal_()
            elif name == "embedding.weight":
                parameter.mul_(0.1)
            elif "attention" in name and made.output is None:
                parameter.mul_(3)
        (made.embedding if made.output is None else made.output).weight[1] *= 3
    return made.quantize() if variant == "int8" else made


def padded(texts: list[Tensor], width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each text at a place of its own in a row of `width`, rubbish around it."""
    ids = torch.randint(0, SHAPE["vocab_size"], (len(texts), width), generator=generator)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        first = int(torch.randint(0, width - len(text) + 1, (), generator=generator))
        ids[row, first : first + len(text)] = text
        mask[row, first : first + len(text)] = 1
    return ids, mask


def trimmed(row: Tensor) -> list[int]:
    """A result without the padding behind `</s>`."""
    ids = row.tolist()
    return ids[: ids.index(1) + 1] if 1 in ids else ids


def test_ids_do_not_depend_on_company_padding_or_order(model: T5ForConditionalGeneration) -> None:
    generator = torch.Generator().manual_seed(5)
    texts = [
        torch.randint(3, SHAPE["vocab_size"], (int(n),), generator=generator)
        for n in torch.randint(1, 60, (40,), generator=generator)
    ]
    alone = [trimmed(model.generate(text[None], max_new_tokens=NEW)[0]) for text in texts]
    assert len({tuple(ids) for ids in alone}) > 10, (
        "texts must decode differently for this test to mean anything"
    )
    assert len({len(ids) for ids in alone}) > 1, "rows must end at different steps"
    for _ in range(50):
        size = int(torch.randint(2, 13, (), generator=generator))
        chosen = torch.randint(0, len(texts), (size,), generator=generator).tolist()
        width = max(len(texts[i]) for i in chosen) + int(torch.randint(0, 40, (), generator=generator))
        ids, mask = padded([texts[i] for i in chosen], width, generator)
        got = model.generate(ids, mask, max_new_tokens=NEW)
        assert [trimmed(row) for row in got] == [alone[i] for i in chosen]


def decoder_of(model: T5ForConditionalGeneration, texts: list[Tensor], capacity: int = 80) -> T5Decoder:
    layout = Layout.of([len(text) for text in texts])
    with torch.inference_mode():
        source = engine_of(model).encode(torch.cat(texts), layout)
    return T5Decoder(engine_of(model), source, layout, capacity)


@torch.inference_mode()
def test_logits_are_the_same_bits(model: T5ForConditionalGeneration) -> None:
    torch.manual_seed(6)
    texts = [torch.randint(3, 300, (n,)) for n in (7, 33, 16, 1, 64, 33, 50)]
    written = torch.randint(3, 300, (len(texts), 70))
    together = decoder_of(model, texts)
    singles = [decoder_of(model, [text]) for text in texts]
    for step in range(written.shape[1]):
        logits = together.step(written[:, step])
        for row, single in enumerate(singles):
            assert torch.equal(single.step(written[row, step : step + 1])[0], logits[row])


@torch.inference_mode()
def test_several_tokens_at_once_are_the_same_bits_as_one_by_one(model: T5ForConditionalGeneration) -> None:
    torch.manual_seed(7)
    texts = [torch.randint(3, 300, (n,)) for n in (9, 20, 31)]
    written = torch.randint(3, 300, (3, 40))
    expected = [decoder_of(model, [text]) for text in texts]
    logits = [
        [single.step(token[None])[0].clone() for token in row]
        for single, row in zip(expected, written, strict=True)
    ]
    decoder = decoder_of(model, texts, 40)
    assert torch.equal(decoder.advance(written[:, :5])[:, 4], torch.stack([row[4] for row in logits]))
    lengths = torch.tensor([3, 7, 1])
    got = decoder.advance(written[:, 5:12], lengths)
    for row, length in enumerate(lengths.tolist()):
        assert torch.equal(got[row, :length], torch.stack(logits[row][5 : 5 + length]))
    # Back to different places, rows in another order, and on one by one.
    decoder.rewind(torch.tensor([6, 9, 4]))
    decoder.select(torch.tensor([2, 0, 1, 0]))
    at = [(2, 4), (0, 6), (1, 9), (0, 6)]
    for ahead in range(20):
        step = decoder.step(torch.stack([written[row, place + ahead] for row, place in at]))
        for got_row, (row, place) in zip(step, at, strict=True):
            alone = logits[row][place + ahead]
            if engine_of(model).is_fused:
                assert torch.equal(got_row, alone)
            else:
                # Rows of one source attend to it in one product: not the same bits as alone.
                assert (got_row - alone).abs().max() < 0.05


def test_compiled_and_plain_decoders_agree() -> None:
    torch.manual_seed(8)
    for variant, bound in (("v1.0", 1e-4), ("v1.1", 1e-4), ("umT5", 1e-4), ("int8", 0.1)):
        texts = [torch.randint(3, 300, (n,)) for n in (9, 1, 31)]
        written = torch.randint(3, 300, (3, 20))
        logits = []
        for plain in (False, True):
            with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
                if plain:
                    patch.setattr(T5Engine, "_fused_weights", lambda *_: None)
                decoder = decoder_of(make(variant), texts)
                logits.append(torch.stack([decoder.step(ids).clone() for ids in written.T]))
        assert (logits[0] - logits[1]).abs().max() < bound * logits[0].abs().max()


def test_a_text_that_is_not_finite_spoils_no_other() -> None:
    model = make("v1.1")
    ids = torch.randint(6, 300, (3, 5), generator=torch.Generator().manual_seed(9))
    before = model.generate(ids, max_new_tokens=NEW)
    with torch.no_grad():
        model.embedding.weight[5] = torch.nan
    spoilt = torch.cat([ids, ids[:1].index_fill(1, torch.tensor([2]), 5)])
    assert torch.equal(model.generate(spoilt, max_new_tokens=NEW)[:3, : before.shape[1]], before)
