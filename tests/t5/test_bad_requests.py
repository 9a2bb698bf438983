"""What cannot be used is refused before the model runs, in words that say what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from unmask.errors import UserError
from unmask.t5.config import T5Config
from unmask.t5.heads import T5ForQuestionAnswering, T5ForSequenceClassification, T5ForTokenClassification
from unmask.t5.model import T5EncoderModel, T5ForConditionalGeneration

SIZES = {"vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
CONFIG = T5Config(**SIZES)
WHOLE = T5ForConditionalGeneration(CONFIG).eval()

IDS = torch.tensor([[5, 6, 1], [7, 1, 0]])
MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])

#: Everything that reads a source.
CALLS: dict[str, Callable[..., Any]] = {
    "forward": lambda ids, mask: WHOLE(ids, mask, labels=torch.tensor([[3, 1], [4, 1]])),
    "generate": lambda ids, mask: WHOLE.generate(ids, mask, max_new_tokens=2),
    "stream": lambda ids, mask: list(WHOLE.stream(ids, mask, max_new_tokens=2)),
    "score": lambda ids, mask: WHOLE.score(ids, [[3, 1], [4, 1]], mask),
    "encoder": T5EncoderModel(CONFIG).eval(),
    "sequence": T5ForSequenceClassification(CONFIG).eval(),
    "token": T5ForTokenClassification(CONFIG).eval(),
    "answer": T5ForQuestionAnswering(CONFIG).eval(),
}

#: Source and mask, and what the message must name.
SOURCES: dict[str, tuple[Any, Any, str]] = {
    "list": ([[5, 1]], None, "input_ids is a list: give a tensor"),
    "one-dimension": (
        IDS[0],
        None,
        r"shape \(3,\), not \(batch, length\): a single text is input_ids\[None\]",
    ),
    "three-dimensions": (IDS[None], None, r"shape \(1, 2, 3\), not \(batch, length\)$"),
    "floats": (IDS.float(), MASK, r"input_ids is of torch.float32, .* give torch.int64"),
    "booleans": (IDS > 0, MASK, "input_ids is of torch.bool"),
    "no-texts": (IDS[:0], MASK[:0], r"input_ids is empty, \(0, 3\)"),
    "no-tokens": (IDS[:, :0], MASK[:, :0], r"input_ids is empty, \(2, 0\)"),
    "masked-row": (IDS, torch.tensor([[1, 1, 1], [0, 0, 0]]), "no token in row 1: leave that text out"),
    "mask-list": (IDS, MASK.tolist(), "attention_mask is a list: give a tensor"),
    "gap": (IDS, torch.tensor([[1, 0, 1], [1, 1, 0]]), "gap .* pad on the left or the right only"),
    "mask-shape": (IDS, MASK[:, :2], r"attention_mask has the shape \(2, 2\), input_ids \(2, 3\)"),
    "negative": (torch.tensor([[5, -7, 1], [7, 6, 1]]), None, r"input_ids holds -7, .* 0 to 19"),
    "unknown-id": (torch.tensor([[5, 20, 1], [7, 6, 1]]), None, r"input_ids holds 20, .* another model's"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("source", SOURCES)
def test_sources(call: str, source: str) -> None:
    ids, mask, message = SOURCES[source]
    with pytest.raises(UserError, match=message):
        CALLS[call](ids, mask)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", [torch.int32, torch.int16, torch.uint8], ids=str)
def test_other_whole_numbers_are_ids_too(call: str, kind: torch.dtype) -> None:
    CALLS[call](IDS.to(kind), MASK.bool())


@pytest.mark.parametrize("padding", [-100, 19, 0])
def test_padding_may_hold_anything(padding: int) -> None:
    """What the mask hides is no id."""
    hidden = IDS.masked_fill(MASK == 0, padding)
    assert torch.equal(
        WHOLE.generate(hidden, MASK, max_new_tokens=3), WHOLE.generate(IDS, MASK, max_new_tokens=3)
    )


TARGETS: dict[str, tuple[dict[str, Tensor], str]] = {
    "neither": ({}, "one of the two"),
    "both": ({"labels": IDS, "decoder_input_ids": IDS}, "one of the two"),
    "labels-shape": ({"labels": IDS[0]}, r"labels has the shape \(3,\)"),
    "labels-rows": ({"labels": IDS[:1]}, "labels has 1 rows, input_ids 2"),
    "labels-range": ({"labels": torch.tensor([[3, 20], [1, -100]])}, "labels holds 20"),
    "labels-below": ({"labels": torch.tensor([[3, -1], [1, -100]])}, "labels holds -1"),
    "labels-floats": ({"labels": IDS.float()}, "labels is of torch.float32"),
    "inputs-range": (
        {"decoder_input_ids": torch.tensor([[0, -100], [0, 1]])},
        "decoder_input_ids holds -100",
    ),
    "inputs-empty": ({"decoder_input_ids": IDS[:, :0]}, "decoder_input_ids is empty"),
}


@pytest.mark.parametrize("target", TARGETS)
def test_targets_of_forward(target: str) -> None:
    options, message = TARGETS[target]
    with pytest.raises(UserError, match=message):
        WHOLE(IDS, MASK, **options)


SEQUENCES = T5ForSequenceClassification(CONFIG).eval()


@pytest.mark.parametrize(
    ("model", "labels", "message"),
    [
        (SEQUENCES, [0, 2], r"labels holds 2, the model knows 0 to 1 \(classes\)$"),
        (SEQUENCES, [0, -1], "labels holds -1"),
        (SEQUENCES, [0], r"labels has the shape \(1,\), not one for each of 2 outputs"),
        (SEQUENCES, [[0.0, 1.0]], r"labels has the shape \(1, 2\), not one for each of 4 outputs"),
        (T5ForTokenClassification(CONFIG).eval(), [[0, 1, 2], [0, 1, -100]], "labels holds 2"),
        (T5ForTokenClassification(CONFIG).eval(), [[0, 1], [0, 1]], "not one for each of 6 outputs"),
        (T5ForTokenClassification(CONFIG).eval(), [[0.0] * 3] * 2, "labels is of torch.float32"),
    ],
)
def test_labels_of_classifiers(model: Any, labels: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        model(IDS, MASK, torch.tensor(labels))


def test_a_number_for_each_text_is_not_spread_over_several() -> None:
    model = T5ForSequenceClassification(T5Config(**SIZES, labels=("how much",))).eval()
    with pytest.raises(UserError, match="not one for each of 2 outputs"):
        model(IDS, MASK, torch.tensor([0.5]))


def test_positions_of_another_number_of_texts() -> None:
    model = T5ForQuestionAnswering(CONFIG).eval()
    with pytest.raises(UserError, match=r"end_positions has the shape \(1,\), not one for each of 2 outputs"):
        model(IDS, MASK, torch.tensor([0, 0]), torch.tensor([1]))


def test_labels_that_are_all_ignored_are_allowed() -> None:
    assert WHOLE(IDS, MASK, labels=torch.full((2, 2), -100)).logits.shape == (2, 2, 20)


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ([5.0, 6.0], "decoder_prefix_ids is of torch.float32"),
        (torch.tensor([0.5]), "decoder_prefix_ids is of torch.float32"),
        ([20], "decoder_prefix_ids holds 20, .* another model's"),
        ([[5], [6, 7]], "as many for each input"),
        ([[5], [6], [7]], r"decoder_prefix_ids is \(3, 1\)"),
        (["Yes"], "must be token ids"),
    ],
    ids=["floats", "float-tensor", "unknown-id", "ragged", "rows", "text"],
)
def test_prefixes(prefix: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        WHOLE.generate(IDS, MASK, decoder_prefix_ids=prefix, max_new_tokens=2)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (IDS.float(), "targets is of torch.float32"),
        (IDS[0], r"targets has the shape \(3,\)"),
        ([[3.5, 1], [4, 1]], "target 0 holds 3.5, token ids are whole numbers"),
        ([3, 1], r"target 0 is 3"),
        ([[3, 20], [4, 1]], "target 0 has an id outside"),
    ],
    ids=["float-tensor", "one-dimension", "float", "single-ids", "unknown-id"],
)
def test_targets_of_score(targets: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        WHOLE.score(IDS, targets, MASK)
