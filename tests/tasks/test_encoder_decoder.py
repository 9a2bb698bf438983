"""A text-to-text task for an encoder–decoder that starts from an ELECTRA: it learns, answers, is found again."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from unmask.errors import UserError
from unmask.tasks.evaluation import HeldOut
from unmask.tasks.finetuning import finetune
from unmask.tasks.kinds import Row
from unmask.tasks.models import family_of, load_for_prediction
from unmask.tasks.settings import FinetuneSettings
from unmask.tasks.task import Task
from unmask.tasks.writing import load_writer
from unmask.tasks.writing_settings import WritingSettings

PAIRS = [(f"{word} {count}", " ".join([word] * count)) for word in ("cat", "dog") for count in (1, 2, 3)]
CPU = torch.device("cpu")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    path = tmp_path / "train.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("source", "target"), *PAIRS])
    return Task("repeat", "text-to-text", ("source",), "target", path, test=path)


@pytest.fixture
def learnt(task: Task, tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    settings = FinetuneSettings(
        epochs=120, batch_size=6, learning_rate=1e-2, electra_writes_by="encoder-decoder"
    )
    return finetune(task, str(tiny_models["electra"]), tmp_path / "run", settings, device=CPU)


def test_it_learns_writes_and_goes_on(task: Task, learnt: Path, tmp_path: Path) -> None:
    assert family_of(learnt) == "encoder-decoder"
    learner = load_for_prediction(task, learnt, device=CPU)
    assert HeldOut.read(task, "test").model(learner).scores["exact_match"] > 0.8
    texts = ["cat 3", "dog 1", "dog 2"]
    answers = [found.text for found in learner.predict([Row(1, (text,), ()) for text in texts])]
    writer = load_writer(learnt, WritingSettings(scores=True), max_new_tokens=20, num_beams=2)
    found = writer.write(texts)
    assert all(len(results) == 1 and results[0].complete for results in found)
    assert [results[0].text for results in found] == answers
    assert all(results[0].tokens[-1] == "[SEP]" for results in found)
    # What is there is trained on, whatever the setting says.
    again = finetune(task, str(learnt), tmp_path / "again", FinetuneSettings(epochs=1), device=CPU)
    assert family_of(again) == "encoder-decoder"


def test_what_is_refused(task: Task, learnt: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="positions leave: 128"):
        load_writer(learnt, max_new_tokens=129)
    with pytest.raises(UserError, match="fills masks"):
        load_writer(learnt, rounds=3)
    with pytest.raises(UserError, match="options of T5"):
        load_writer(learnt, WritingSettings(regex="a"))
    with pytest.raises(UserError, match="cannot stream"):
        load_writer(learnt, max_new_tokens=5).stream("cat 1")
