"""A student learns from its teacher: what the loss is, that it helps, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tuning
from small_tasks import task_of
from tuning import CPU, FAST

from unmask.data.finetuning import Taught
from unmask.errors import UserError
from unmask.tasks.distillation import SoftLoss, _decided, distil, soft_cross_entropy
from unmask.tasks.evaluation import HeldOut
from unmask.tasks.finetuning import finetune
from unmask.tasks.models import load_for_prediction, load_for_training
from unmask.tasks.rows import read_rows
from unmask.tasks.settings import DistilSettings


def test_soft_labels_by_hand() -> None:
    student, teacher = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    p, q = F.softmax(teacher / 2, -1), F.softmax(student / 2, -1)
    expected = 4 * (p * (p.log() - q.log())).sum(-1).mean()
    torch.testing.assert_close(soft_cross_entropy(student, teacher, 2.0), expected)
    assert soft_cross_entropy(teacher, teacher, 2.0) == pytest.approx(0.0)


HEADS = ("classification", "regression", "tagging", "question-answering", "multiple-choice")


@pytest.mark.parametrize("kind", HEADS)
def test_the_loss_of_every_head(kind: str, tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    task = task_of(kind, tmp_path)
    rows = read_rows(task, "train")
    learner: Any = load_for_training(task, str(tiny_models["electra"]), rows, fresh_weights=False, device=CPU)
    learner.model.eval()
    for parameter in learner.model.parameters():
        # Heads start too small for anything to be told apart.
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    source = learner.examples(rows)
    said = {name: value.numpy() for name, value in _decided(learner, source).items()}
    some = np.array([2, 0, 1])
    batch = Taught(source, said["logits"], said["counts"]).fetch(some)
    with torch.no_grad():
        # Without a share for the teacher it is the head's own loss, and a teacher has nothing to teach itself.
        hard = SoftLoss(learner, 2.0, 0.0)(batch, 0, batch).total
        torch.testing.assert_close(hard, learner.loss(source.fetch(some), 0, source.fetch(some)).total)
        assert SoftLoss(learner, 2.0, 1.0)(batch, 0, batch).total == pytest.approx(0.0, abs=1e-6)
        # What it says of other examples is another lesson.
        others = batch | {
            "teacher": Taught(source, said["logits"], said["counts"]).fetch(some[::-1])["teacher"]
        }
        assert SoftLoss(learner, 2.0, 1.0)(others, 0, others).total > 1e-4


def test_a_tagger_learns_its_teachers_tags(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    task = task_of("tagging", tmp_path)
    settings = replace(FAST, epochs=40, patience=0)
    base = str(tiny_models["electra"])
    teacher = finetune(task, base, tmp_path / "teacher", settings, device=CPU)
    held_out = HeldOut.read(task, "test")
    # The training tags are wrong now.
    assert task.train is not None
    text = task.train.read_text()
    task.train.write_text(text.replace("B-person O O", "O B-person O"))
    distilling = DistilSettings(soft_share=1.0)
    model = distil(task, str(teacher), base, tmp_path / "run", settings, distilling, device=CPU)
    assert held_out.model(load_for_prediction(task, model, device=CPU)).scores["entity_f1"] > 0.9


def test_a_student_of_tokens_needs_its_teachers_vocabulary(
    tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    task = task_of("question-answering", tmp_path)
    settings = replace(FAST, epochs=1)
    teacher = finetune(task, str(tiny_models["electra"]), tmp_path / "teacher", settings, device=CPU)
    other = tuning.electra(tmp_path / "other")
    with pytest.raises(UserError, match="cut the rows of 'question-answering' into other tokens"):
        distil(task, str(teacher), str(other), tmp_path / "run", settings, DistilSettings(), device=CPU)


def test_an_electra_learns_its_teachers_labels(tmp_path: Path) -> None:
    task = tuning.classification(tmp_path)
    fast = replace(FAST, epochs=16, patience=0)
    teacher = finetune(task, str(tuning.electra(tmp_path / "large")), tmp_path / "teacher", fast, device=CPU)
    # The training labels are wrong: what the student knows it has from its teacher.
    text = task.train.read_text()  # type: ignore[union-attr]
    swapped = text.replace(",animal", ",x").replace(",thing", ",animal").replace(",x", ",thing")
    task.train.write_text(swapped)  # type: ignore[union-attr]
    held_out = HeldOut.read(task, "validation")
    known = held_out.model(load_for_prediction(task, teacher, device=CPU)).scores["accuracy"]
    assert known > 0.9
    student = tuning.electra(tmp_path / "small", width=16, layers=1)
    model = distil(
        task,
        str(teacher),
        str(student),
        tmp_path / "run",
        fast,
        DistilSettings(soft_share=1.0),
        device=CPU,
    )
    assert held_out.model(load_for_prediction(task, model, device=CPU)).scores["accuracy"] > 0.9


def test_a_t5_learns_what_its_teacher_writes(tmp_path: Path) -> None:
    task = tuning.echoes(tmp_path)
    teacher = finetune(task, str(tuning.t5(tmp_path / "large")), tmp_path / "teacher", FAST, device=CPU)
    student = tuning.t5(tmp_path / "small", width=16)
    run = tmp_path / "run"
    settings = replace(FAST, epochs=2)
    model = distil(task, str(teacher), str(student), run, settings, DistilSettings(num_beams=2), device=CPU)
    lines = [json.loads(line) for line in (run / "teacher.jsonl").read_text().splitlines()]
    assert len({line["source"] for line in lines}) == len(lines), "each source is asked once"
    rows = HeldOut.read(task, "validation").rows
    assert len(load_for_prediction(task, model, device=CPU).predict(rows)) == len(rows)
    # The targets are the teacher's, not the file's: a continued run takes them from where they were written.
    again = distil(task, str(teacher), str(student), run, settings, DistilSettings(num_beams=2), device=CPU)
    assert again == model


def test_families_do_not_mix(tmp_path: Path) -> None:
    t5, electra = tuning.t5(tmp_path / "t5"), tuning.electra(tmp_path / "electra")
    with pytest.raises(UserError, match="a student is of its teacher's family"):
        distil(
            tuning.echoes(tmp_path),
            str(t5),
            str(electra),
            tmp_path / "run",
            FAST,
            DistilSettings(),
            device=CPU,
        )
