"""A student learns from its teacher: what the loss is, that it helps, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import tuning
from tuning import CPU, FAST

from unmask.errors import UserError
from unmask.tasks.distillation import distil, soft_cross_entropy
from unmask.tasks.evaluation import HeldOut
from unmask.tasks.finetuning import finetune
from unmask.tasks.models import load_for_prediction
from unmask.tasks.settings import DistilSettings


def test_soft_labels_by_hand() -> None:
    student, teacher = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    p, q = F.softmax(teacher / 2, -1), F.softmax(student / 2, -1)
    expected = 4 * (p * (p.log() - q.log())).sum(-1).mean()
    torch.testing.assert_close(soft_cross_entropy(student, teacher, 2.0), expected)
    assert soft_cross_entropy(teacher, teacher, 2.0) == pytest.approx(0.0)


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
