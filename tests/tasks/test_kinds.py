"""Every kind of task is learnt by both families, from the same rows and the same task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_tasks import DATA, task_of

from unmask.errors import UserError
from unmask.tasks.evaluation import HeldOut
from unmask.tasks.finetuning import finetune
from unmask.tasks.kinds import KINDS, Row
from unmask.tasks.models import load_for_prediction, load_for_training
from unmask.tasks.rows import read_rows
from unmask.tasks.settings import FinetuneSettings
from unmask.tasks.task import Task

CPU = torch.device("cpu")
FAMILIES = ("t5", "electra")
#: Where an answer is one of so many, it comes with its probability.
COUNTED = {
    "t5": {"classification", "pair-classification", "regression", "multiple-choice"},
    "electra": {"classification", "pair-classification", "question-answering", "multiple-choice"},
}


def test_all_kinds_are_tried() -> None:
    assert {kind for kind in KINDS if KINDS[kind].trains} == set(DATA)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", DATA)
def test_it_is_learnt(kind: str, family: str, tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    task = task_of(kind, tmp_path)
    settings = FinetuneSettings(
        epochs=60,
        batch_size=9,
        optimiser="adamw",
        learning_rate=1e-2,
        layer_decay=1.0,
        precision="float32",
        warmup_share=0,
    )
    model = finetune(task, str(tiny_models[family]), tmp_path / "run", settings, device=CPU)
    held_out = HeldOut.read(task, "test")
    learner = load_for_prediction(task, model, device=CPU)
    found = learner.predict(held_out.rows)
    scores = held_out.score([prediction.text for prediction in found]).scores
    assert scores[task.metrics[0]] > 0.9 * (100 if kind == "question-answering" else 1) or (kind, family) == (
        "text-to-text",
        "electra",
    ), found
    # One row alone, without what is wanted of it, is answered alike.
    alone = [learner.predict([replace(row, references=(), starts=())])[0] for row in held_out.rows]
    for one, other in zip(alone, found, strict=True):
        assert one.text == other.text or float(one.text) == pytest.approx(float(other.text), abs=1e-4)
    counted = COUNTED[family]
    assert all((one.confidence is not None) == (kind in counted) for one in found)
    assert all(0 < one.confidence <= 1.0001 for one in found if one.confidence is not None)


def test_t5_answers_with_a_label_whatever_it_would_write(
    tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    task = task_of("classification", tmp_path)
    rows = read_rows(task, "train")
    learner = load_for_training(task, str(tiny_models["t5"]), rows, fresh_weights=False, device=CPU)
    assert {found.text for found in learner.predict(rows)} <= {"yes", "no"}
    # The score of each word, by hand.
    model, tokenizer = learner.model, learner.tokenizer  # type: ignore[attr-defined]
    ids = torch.tensor([tokenizer.encode(rows[0].sources[0])])
    scores = model.score(ids, [tokenizer.encode("no"), tokenizer.encode("yes")])
    assert learner.predict(rows[:1])[0].text == ("no", "yes")[int(scores.argmax())]
    assert learner.predict(rows[:1])[0].confidence == pytest.approx(float(scores.softmax(0).max()), abs=1e-5)


def test_numbers_are_rounded_to_the_step() -> None:
    kind, task = KINDS["regression"], Task("t", "regression", ("a",), "b", range=(0.0, 5.0))
    for value, written in (
        ("2.57", "2.6"),
        ("4.99", "5.0"),
        ("7", "5.0"),
        ("-1", "0.0"),
        ("0.1", "0.0"),
        ("3.8", "3.8"),
    ):
        assert kind.target_text(task, Row(1, ("x",), (value,))) == written
    labels = kind.labels(task, [])
    assert (labels[0], labels[13], labels[-1], len(labels)) == ("0.0", "2.6", "5.0", 26)
    coarse = replace(task, step=1.0, range=(-1.0, 2.0))
    assert kind.labels(coarse, []) == ("-1", "0", "1", "2")
    with pytest.raises(UserError, match=r"1,200,001 numbers in steps of 0.2, .* larger `step`, such as 5000"):
        kind.labels(replace(task, range=(0.0, 240_000.0)), [])


def test_entities_are_written_and_found_again() -> None:
    kind, labels = KINDS["tagging"], ("B-loc", "B-per", "I-per", "O")
    task = Task("t", "tagging", ("tokens",), "tags", label_words={"per": "person", "loc": "place"})
    row = Row(1, ("Ada Lovelace met Ada in London",), ("B-per I-per O B-per O B-loc",))
    written = kind.target_text(task, row)
    assert written == "person: Ada Lovelace ; person: Ada ; place: London"
    assert kind.answer(task, row, written, labels) == row.target
    for nonsense in (
        "",
        ";;",
        "person",
        "person: ",
        "person: Bob",
        "beast: Ada",
        "place: London ; person: Ada : x",
    ):
        tags = kind.answer(task, row, nonsense, labels).split()
        assert len(tags) == 6 and set(tags) <= {"O", "B-loc"}, nonsense
    plain = Task("t", "tagging", ("tokens",), "tags")
    speech = Row(1, ("the big cat sat",), ("DET ADJ NOUN VERB",))
    assert kind.target_text(plain, speech) == "DET: the ; ADJ: big ; NOUN: cat ; VERB: sat"
    named = ("ADJ", "DET", "NOUN", "VERB")
    assert kind.answer(plain, speech, kind.target_text(plain, speech), named) == speech.target


def test_a_long_row_is_tagged_to_its_end(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    long = {"tokens": " ".join(["Ada", "sat"] * 100), "target": " ".join(["B-person", "O"] * 100)}
    task = task_of("tagging", tmp_path, [long, *DATA["tagging"][1]], max_source_length=16)
    rows = read_rows(task, "train")
    learner = load_for_training(task, str(tiny_models["electra"]), rows, fresh_weights=False, device=CPU)
    examples = learner.examples(rows)
    assert len(examples) > len(rows)
    batch = examples.fetch(torch.arange(len(examples)).numpy())
    assert batch["lengths"].max() <= 16 and (batch["token_labels"] >= 0).sum() == 200 + 6 * 4
    assert [len(found.text.split()) for found in learner.predict(rows)] == [200] + [4] * 6


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("regression", {"target": "high"}, "row 1: the column 'target' holds 'high', not a number"),
        ("regression", {"target": float("inf")}, "row 1: the column 'target' holds 'Infinity', not a number"),
        ("tagging", {"target": "O O"}, "row 1: 4 tokens in 'tokens' but 2 tags in 'target'"),
        ("question-answering", {"target": "dog"}, "row 1: the answer 'dog' is not in the context"),
        (
            "question-answering",
            {"target": {"text": ["cat"], "answer_start": [3]}},
            "row 1: the answer 'cat' is not at character 3 of the context",
        ),
        (
            "multiple-choice",
            {"target": 2},
            "row 1: the target is '2': give the number of a choice, from 0 to 1",
        ),
        ("multiple-choice", {"two": None}, "row 1: the column 'two' has no value"),
    ],
)
def test_a_value_that_does_not_fit_is_named(
    kind: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    first, *others = DATA[kind][1]
    task = task_of(kind, tmp_path, [{**first, **change}, *others])
    with pytest.raises(UserError) as error:
        read_rows(task, "train")
    assert message in str(error.value)


def test_no_answer_has_to_be_meant(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"row 2: no answer in 'target': if this is meant, set `unanswerable = true`"
    ):
        read_rows(task_of("question-answering", tmp_path, unanswerable=False), "train")
