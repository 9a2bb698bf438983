"""The four models against Transformers: logits, losses, gradients, padded on either side, ragged, packed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import unmask
from unmask.electra.config import ElectraConfig
from unmask.electra.heads import ElectraForSequenceClassification, ElectraForTokenClassification, ElectraModel
from unmask.electra.model import ElectraBackbone, ElectraForMaskedLM, ElectraForPreTraining
from unmask.errors import UserError
from unmask.nn.ragged import Layout

TOKEN_MODELS = ["ElectraForMaskedLM", "ElectraForPreTraining", "ElectraForTokenClassification"]
MODELS = [*TOKEN_MODELS, "ElectraForSequenceClassification"]
LENGTHS = (9, 4, 7)
WIDTH = max(LENGTHS)

CONFIG = ElectraConfig(
    vocab_size=40,
    embedding_size=8,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=20,
    initializer_range=0.2,
)


def batch(side: str) -> dict[str, Tensor]:
    """Three texts of 9, 4 and 7 tokens, padded on one side."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.zeros(3, WIDTH, dtype=torch.long)
    mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        cells = slice(0, length) if side == "right" else slice(WIDTH - length, WIDTH)
        ids[row, cells] = torch.randint(5, 40, (length,), generator=generator)
        types[row, cells] = (torch.arange(length) >= length // 2).long()
        mask[row, cells] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def labels_for(architecture: str, inputs: dict[str, Tensor]) -> Tensor:
    mask = inputs["attention_mask"]
    if architecture == "ElectraForSequenceClassification":
        return torch.tensor([2, 0, 1])
    if architecture == "ElectraForPreTraining":
        return (inputs["input_ids"] % 3 == 0).long()
    classes = inputs["input_ids"] % 3 if architecture == "ElectraForTokenClassification" else torch.tensor(7)
    return torch.where((mask == 1) & (inputs["input_ids"] % 2 == 0), classes, -100)


def expected(model: Any, inputs: dict[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Transformers' logits (zero on padding) and loss."""
    mask = inputs["attention_mask"]
    if "Sequence" in type(model).__name__:
        # Transformers reads column 0, which is padding in a row padded on the left; the text begins later.
        hidden = model.electra(**inputs)[0][torch.arange(3), mask.argmax(1)]
        logits = model.classifier(hidden[:, None])
        return logits, F.cross_entropy(logits, labels)
    out = model(**inputs, labels=labels)
    return out.logits * mask.view(3, WIDTH, *[1] * (out.logits.dim() - 2)), out.loss


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("embedding_size", [8, 16])
@pytest.mark.parametrize("architecture", MODELS)
def test_agrees_with_transformers(
    architecture: str, embedding_size: int, side: str, saved: Callable[..., tuple[Any, Path]]
) -> None:
    theirs, directory = saved(architecture, embedding_size=embedding_size, num_labels=3)
    ours = getattr(unmask, architecture).from_pretrained(directory)
    inputs = batch(side)
    labels = labels_for(architecture, inputs)
    wanted_logits, wanted_loss = expected(theirs, inputs, labels)
    out = ours(**inputs, labels=labels)
    torch.testing.assert_close(out.logits, wanted_logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(out.loss, wanted_loss, atol=1e-5, rtol=0)

    wanted_loss.backward()
    out.loss.backward()
    wanted = {name: p.grad for name, p in theirs.named_parameters()}
    found = {ours.hub_name(name): p.grad for name, p in ours.named_parameters()}
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        error = (gradient - wanted[name]).abs().max()
        assert error <= 1e-3 * wanted[name].abs().max() + 1e-7, name


@pytest.mark.parametrize("architecture", MODELS)
def test_without_mask_or_types(architecture: str, saved: Callable[..., tuple[Any, Path]]) -> None:
    theirs, directory = saved(architecture)
    ids = batch("right")["input_ids"]
    found = getattr(unmask, architecture).from_pretrained(directory)(ids).logits
    torch.testing.assert_close(found, theirs(ids).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("hidden_act", ["gelu_new", "gelu_pytorch_tanh", "relu", "silu"])
def test_activations(hidden_act: str, saved: Callable[..., tuple[Any, Path]]) -> None:
    theirs, directory = saved("ElectraForPreTraining", hidden_act=hidden_act)
    ids = batch("right")["input_ids"]
    found = ElectraForPreTraining.from_pretrained(directory)(ids).logits
    torch.testing.assert_close(found, theirs(ids).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("num_labels", "labels"),
    [
        (1, torch.tensor([0.5, -1.0, 2.0])),
        (3, torch.tensor([2, 0, 1])),
        (3, torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 0]])),
    ],
    ids=["regression", "classes", "several labels"],
)
def test_sequence_losses(num_labels: int, labels: Tensor, saved: Callable[..., tuple[Any, Path]]) -> None:
    theirs, directory = saved("ElectraForSequenceClassification", num_labels=num_labels)
    ours = ElectraForSequenceClassification.from_pretrained(directory)
    inputs = batch("right")
    found = ours(**inputs, labels=labels).loss
    torch.testing.assert_close(found, theirs(**inputs, labels=labels).loss, atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", MODELS)
def test_lists_answer_as_padded(architecture: str) -> None:
    model = getattr(unmask, architecture)(CONFIG).eval()
    inputs = batch("right")
    labels = labels_for(architecture, inputs) % 2
    padded = model(**inputs, labels=labels)

    def ragged(values: Tensor) -> list[list[int]]:
        return [row[:n].tolist() for row, n in zip(values, LENGTHS, strict=True)]

    listed = model(
        input_ids=ragged(inputs["input_ids"]),
        token_type_ids=ragged(inputs["token_type_ids"]),
        labels=ragged(labels) if labels.dim() == 2 else labels.tolist(),
    )
    torch.testing.assert_close(listed.logits, padded.logits)
    torch.testing.assert_close(listed.loss, padded.loss)


@pytest.mark.parametrize("architecture", TOKEN_MODELS)
def test_padding_comes_back_as_zeros(architecture: str) -> None:
    inputs = batch("left")
    logits = getattr(unmask, architecture)(CONFIG)(**inputs).logits
    assert (logits[inputs["attention_mask"] == 0] == 0).all()


def test_neighbours_in_a_stream_do_not_see_each_other() -> None:
    model = ElectraForPreTraining(CONFIG).eval()
    layout = Layout.of([4, 6, 5])
    ids = torch.randint(5, 40, (15,))
    before = model.token_logits(ids, layout)
    changed = ids.clone()
    changed[4:10] = torch.randint(5, 40, (6,))
    after = model.token_logits(changed, layout)
    others = torch.tensor([*range(4), *range(10, 15)])
    torch.testing.assert_close(after[others], before[others], atol=1e-6, rtol=0)
    assert not torch.allclose(after[4:10], before[4:10], atol=1e-3)
    for first, length in ((0, 4), (4, 6), (10, 5)):
        alone = model.token_logits(ids[first : first + length], Layout.of([length]))
        torch.testing.assert_close(alone, before[first : first + length], atol=1e-5, rtol=0)


def test_packed_methods_agree_with_forward() -> None:
    inputs = batch("right")
    rows = [row[:n] for row, n in zip(inputs["input_ids"], LENGTHS, strict=True)]
    stream, layout = torch.cat(rows), Layout.of(LENGTHS)
    types = torch.cat([row[:n] for row, n in zip(inputs["token_type_ids"], LENGTHS, strict=True)])
    cells = inputs["attention_mask"].flatten().nonzero().squeeze(1)

    tokens = ElectraForTokenClassification(CONFIG).eval()
    found = tokens.token_logits(stream, layout, types)
    torch.testing.assert_close(found, tokens(**inputs).logits.flatten(0, 1)[cells])

    sequences = ElectraForSequenceClassification(CONFIG).eval()
    found = sequences.sequence_logits(stream, layout, types)
    torch.testing.assert_close(found, sequences(**inputs).logits)

    generator = ElectraForMaskedLM(CONFIG).eval()
    at, targets = torch.tensor([1, 8, 9, 19]), torch.tensor([5, 6, 7, 8])
    hidden = generator.hidden(stream, layout, types, at=at)
    wanted = generator(**inputs).logits.flatten(0, 1)[cells][at]
    torch.testing.assert_close(generator.logits(hidden), wanted)
    loss = F.cross_entropy(wanted, targets, reduction="sum")
    torch.testing.assert_close(generator.masked_lm_loss_sum(hidden, targets), loss)


def test_samples_follow_the_softmax() -> None:
    generator = ElectraForMaskedLM(CONFIG).eval()
    hidden = torch.randn(1, 8).expand(20_000, 8)
    uniforms = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn, likeliest = generator.sample(hidden, uniforms, temperature=0.5)
    wanted = torch.softmax(generator.logits(hidden[:1])[0] / 0.5, -1)
    found = torch.bincount(drawn, minlength=40) / 20_000
    torch.testing.assert_close(found, wanted, atol=0.015, rtol=0)
    assert (likeliest == wanted.argmax()).all()


def test_too_long_names_both_numbers() -> None:
    model = ElectraForPreTraining(CONFIG)
    with pytest.raises(UserError, match=r"21 .* 20 positions"):
        model(torch.full((1, 21), 5))
    with pytest.raises(UserError, match=r"21 .* 20 positions"):
        model.token_logits(torch.full((21,), 5), Layout.of([21]))
    # Padding on the right needs no positions.
    mask = (torch.arange(21) < 20).long()[None]
    assert model(torch.full((1, 21), 5), mask).logits.shape == (1, 21)


PADDED = torch.tensor([[5, 6, 7], [8, 9, 0]])

#: Arguments, and what the message must name.
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown-id": ({"input_ids": [[5, 40, 6]]}, "input_ids holds 40, .* 0 to 39 .* another model's"),
    "negative-id": ({"input_ids": [[5, -1, 6]]}, "input_ids holds -1, .* 0 to 39"),
    "segment": ({"input_ids": [[5, 6]], "token_type_ids": [[0, 2]]}, "token_type_ids holds 2"),
    "one-dimension": ({"input_ids": PADDED[0]}, r"a single text is input_ids\[None\]"),
    "single-ids": ({"input_ids": [5, 6]}, r"one list for each text, \[input_ids\]"),
    "floats": ({"input_ids": PADDED.float()}, "input_ids is of torch.float32, .* give torch.int64"),
    "list-of-floats": ({"input_ids": [[5.0, 6.0]]}, "input_ids is of torch.float32"),
    "texts": (
        {"input_ids": ["a text", "another"]},
        "input_ids holds something else than numbers: .* encode_batch",
    ),
    "a-text": ({"input_ids": "a text"}, "input_ids holds something else than numbers"),
    "holes": ({"input_ids": [[5, None]]}, "input_ids holds something else than numbers"),
    "nothing": ({"input_ids": None}, "input_ids is a NoneType: give a tensor"),
    "mask-list": ({"input_ids": PADDED, "attention_mask": [[1]]}, "attention_mask is a list: give a tensor"),
    "half-segments": (
        {"input_ids": [[5, 6]], "token_type_ids": [[0, 0.5]]},
        "token_type_ids is of torch.float32",
    ),
    "no-texts": ({"input_ids": PADDED[:0]}, r"input_ids is empty, \(0, 3\)"),
    "empty-list": ({"input_ids": []}, "input_ids is empty: give at least one text"),
    "empty-row": ({"input_ids": [[5], []]}, "input_ids has no token in row 1"),
    "masked-row": (
        {"input_ids": PADDED, "attention_mask": torch.tensor([[0, 0, 0], [1, 1, 0]])},
        "attention_mask has no token in row 0: leave that text out",
    ),
    "mask-shape": (
        {"input_ids": PADDED, "attention_mask": torch.ones(2, 2)},
        r"attention_mask has the shape \(2, 2\), input_ids \(2, 3\)",
    ),
    "mask-of-lists": ({"input_ids": [[5]], "attention_mask": torch.ones(1, 1)}, "leave attention_mask out"),
}


@pytest.mark.parametrize("make", [ElectraForPreTraining, ElectraForMaskedLM, ElectraModel])
@pytest.mark.parametrize("case", BAD)
def test_bad_requests(case: str, make: type[ElectraBackbone]) -> None:
    arguments, message = BAD[case]
    with pytest.raises(UserError, match=message):
        make(CONFIG)(**arguments)


def test_labels_that_do_not_fit() -> None:
    model = ElectraForPreTraining(CONFIG)
    with pytest.raises(UserError, match="labels has rows of"):
        model([[5, 6], [7]], labels=[[0, 1], [0, 1]])
    with pytest.raises(UserError, match="labels has the shape"):
        model(torch.full((2, 3), 5), labels=torch.zeros(2, 4))
    classifier = ElectraForTokenClassification(CONFIG)
    with pytest.raises(UserError, match=r"labels holds 2, the model knows 0 to 1 \(classes\)"):
        classifier([[5, 6], [7]], labels=[[0, 2], [1]])
    with pytest.raises(UserError, match="labels holds 40"):
        ElectraForMaskedLM(CONFIG)([[5, 6], [7]], labels=[[0, 40], [1]])
    with pytest.raises(UserError, match="not one for each of 2 outputs"):
        ElectraForSequenceClassification(CONFIG)([[5, 6], [7]], labels=[0])


def test_first_weights() -> None:
    config = replace(CONFIG, vocab_size=3000, embedding_size=64, hidden_size=128, initializer_range=0.02)
    model = ElectraForPreTraining(config)
    # A normal cut at two deviations has 0.880 of its deviation left.
    for weight in (model.encoder.embeddings.token.weight, model.discriminator_head.dense.weight):
        assert weight.abs().max() <= 0.04
        assert weight.std().item() == pytest.approx(0.02 * 0.880, rel=0.03)
    bound = (6 / (64 + 128)) ** 0.5
    assert model.encoder.projection is not None
    assert 0.95 * bound < model.encoder.projection.weight.abs().max() <= bound
    assert model.discriminator_head.output.weight.abs().max() > 0.1
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all()
        elif parameter.dim() == 1:
            assert (parameter == 1).all()


def test_dropout_is_for_training() -> None:
    model = ElectraForTokenClassification(CONFIG)
    inputs = batch("right")
    assert not torch.equal(model.train()(**inputs).logits, model(**inputs).logits)
    assert torch.equal(model.eval()(**inputs).logits, model(**inputs).logits)
