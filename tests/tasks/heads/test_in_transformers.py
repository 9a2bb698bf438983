"""Each of ELECTRA's heads, once it has learnt a task, answers and scores the same in Transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_tasks import task_of
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from unmask.tasks.evaluation import HeldOut
from unmask.tasks.finetuning import finetune
from unmask.tasks.kinds import Row
from unmask.tasks.models import load_for_prediction
from unmask.tasks.settings import FinetuneSettings

CPU = torch.device("cpu")
#: As many steps as make answers differ from each other.
SETTINGS = FinetuneSettings(
    epochs=30,
    batch_size=9,
    learning_rate=1e-2,
    layer_decay=1.0,
    precision="float32",
    warmup_share=0,
    patience=0,
)
Answer = Callable[[Any, Any, Row], str]


def label(model: Any, tokenizer: Any, row: Row) -> str:
    logits = model(**tokenizer(*row.sources, return_tensors="pt")).logits[0]
    return str(model.config.id2label[int(logits.argmax())])


def number(model: Any, tokenizer: Any, row: Row) -> str:
    return str(float(model(**tokenizer(*row.sources, return_tensors="pt")).logits[0, 0]))


def tags(model: Any, tokenizer: Any, row: Row) -> str:
    encoded = tokenizer(row.sources[0].split(), is_split_into_words=True, return_tensors="pt")
    found = model(**encoded).logits[0].argmax(-1).tolist()
    words = encoded.word_ids()
    first = {word: place for place, word in reversed(list(enumerate(words))) if word is not None}
    return " ".join(model.config.id2label[found[first[word]]] for word in sorted(first))


def span(model: Any, tokenizer: Any, row: Row) -> str:
    """The best span of the one window, "" where [CLS] is better (SQuAD 2)."""
    encoded = tokenizer(*row.sources, return_tensors="pt", return_offsets_mapping=True)
    offsets = encoded.pop("offset_mapping")[0].tolist()
    out = model(**encoded)
    begins, ends = out.start_logits[0], out.end_logits[0]
    places = [place for place, part in enumerate(encoded.sequence_ids(0)) if part == 1]
    best, begin, end = max(
        (float(begins[first] + ends[last]), first, last)
        for first in places
        for last in places
        if first <= last
    )
    return row.sources[1][offsets[begin][0] : offsets[end][1]] if best > float(begins[0] + ends[0]) else ""


def choice(model: Any, tokenizer: Any, row: Row) -> str:
    questions = [row.sources[0]] * len(row.choices)
    encoded = tokenizer(questions, list(row.choices), padding=True, return_tensors="pt")
    return str(int(model(**{name: value[None] for name, value in encoded.items()}).logits[0].argmax()))


@pytest.mark.parametrize(
    ("kind", "architecture", "answer"),
    [
        ("pair-classification", AutoModelForSequenceClassification, label),
        ("regression", AutoModelForSequenceClassification, number),
        ("tagging", AutoModelForTokenClassification, tags),
        ("question-answering", AutoModelForQuestionAnswering, span),
        ("multiple-choice", AutoModelForMultipleChoice, choice),
    ],
)
def test_it_answers_alike(
    kind: str, architecture: Any, answer: Answer, tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    task = task_of(kind, tmp_path)
    place = finetune(task, str(tiny_models["electra"]), tmp_path / "run", SETTINGS, device=CPU)
    held_out = HeldOut.read(task, "test")
    ours = held_out.model(load_for_prediction(task, place, device=CPU))
    model, missing = architecture.from_pretrained(place, output_loading_info=True)
    assert not missing["missing_keys"] and not missing["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(place)
    with torch.no_grad():
        theirs = held_out.score([answer(model.eval(), tokenizer, row) for row in held_out.rows])
    assert len(set(ours.predictions)) > 1
    assert theirs.scores == pytest.approx(ours.scores, abs=1e-4)
    for one, other in zip(theirs.predictions, ours.predictions, strict=True):
        assert one == other or float(one) == pytest.approx(float(other), abs=1e-4)
