"""What the checker finds, and that it says nothing of data that is in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from unmask.errors import UserError
from unmask.tasks.checks import check_data
from unmask.tasks.models import load_for_training, token_counter
from unmask.tasks.rows import read_rows
from unmask.tasks.task import Task


def task_of(tmp_path: Path, kind: str = "classification", **splits: str) -> Task:
    files = {}
    for split, text in splits.items():
        (tmp_path / f"{split}.csv").write_text(f"text,label\n{text}")
        files[split] = tmp_path / f"{split}.csv"
    return Task("t", kind, ("text",), "label", **files)


def test_data_in_order_has_no_warning(tmp_path: Path) -> None:
    found = check_data(
        task_of(tmp_path, train="a,x\nb,y\n", test="c,x\nd,y\n"), lambda rows: {"source": [1] * len(rows)}
    )
    assert found.warnings() == []
    assert [(check.split, check.rows, dict(check.classes)) for check in found.splits] == [
        ("train", 2, {"x": 1, "y": 1}),
        ("test", 2, {"x": 1, "y": 1}),
    ]


def test_every_fault_is_found_and_named(tmp_path: Path) -> None:
    train = "a,x\n,x\nb,y\na,x\nb,x\n" + "".join(f"c{n},x\n" for n in range(20)) + "e,only-here\n"
    found = check_data(
        task_of(tmp_path, train=train, test="a,x\nf,z\ng,y\n"),
        lambda rows: {"source": [1 + 200 * (row.sources[0] == "e") for row in rows]},
    )
    assert found.warnings() == [
        "train: 1 rows have an empty column (row 2)",
        "train: 1 rows repeat an earlier one (row 4)",
        "train: 1 rows have the source of an earlier one and another target (row 5)",
        "train: 1 of 25 rows (4%) are cut at 128 tokens of the source (max_source_length); the longest has 201",
        "train: 23 rows are 'x' and 1 are 'only-here': accuracy says little here, macro F1 more",
        "test: 1 of 3 rows have a source that training has too (row 1)",
        "train: no other split has the label 'only-here': how well it is learnt is not measured",
        "test: no other split has the label 'z': it cannot be learnt",
    ]


def test_rows_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    found = check_data(task_of(tmp_path, "regression", train="a,1\n" + "b,high\n" * 7))
    assert found.splits[0].rows == 1
    lines = found.warnings()
    assert len(lines) == 6 and "row 2: the column 'label' holds 'high', not a number" in lines[0]
    assert lines[-1] == "train: 2 more rows cannot be used"


def test_several_answers_to_one_source_are_no_contradiction_where_text_is_written(tmp_path: Path) -> None:
    assert check_data(task_of(tmp_path, "text-to-text", train="a,x\na,y\n")).warnings() == []


def test_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no file"):
        check_data(Task("t", "classification", ("text",), "label"))
    with pytest.raises(UserError, match="every row has an empty column"):
        check_data(task_of(tmp_path, train="a,\n,x\n"))


@pytest.mark.parametrize("family", ["t5", "electra"])
def test_lengths_are_those_that_training_would_cut(
    family: str, tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    task = task_of(tmp_path, train="the cat sat on the mat,yes\nme,no\n")
    rows = read_rows(task, "train")
    counter = token_counter(task, str(tiny_models[family]))
    assert counter is not None
    learner = load_for_training(
        task, str(tiny_models[family]), rows, fresh_weights=False, device=torch.device("cpu")
    )
    batch = learner.examples(rows).fetch(np.arange(2))
    found = counter(rows)
    assert list(found["source"]) == batch["input_lengths" if family == "t5" else "lengths"].tolist()
    if family == "t5":
        assert list(found["target"]) == batch["target_lengths"].tolist()


def test_what_is_read_in_parts_is_not_cut(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    task = Task("t", "question-answering", ("question", "context"), "answer")
    assert token_counter(task, str(tiny_models["electra"])) is None
    assert token_counter(task, str(tiny_models["t5"])) is not None


def test_a_metric_that_cannot_read_the_targets_is_named(tmp_path: Path) -> None:
    found = check_data(task_of(tmp_path, "text-to-text", train="cat,猫坐在垫子上\n"))
    assert [line.split(" takes")[0] for line in found.warnings()] == ["bleu"]


def test_what_targets_do_not_suit_is_said(tmp_path: Path) -> None:
    numbers = task_of(tmp_path, "regression", train="a,0.11\nb,0.47\n")
    assert check_data(numbers).warnings() == [
        "targets from 0.11 to 0.47 in steps of 0.2 are 2 numbers, all that a T5 can write: give a smaller `step`"
    ]
    labels = task_of(tmp_path, train="a,1\nb,1.0\nc,2\nd,x\n")
    assert check_data(labels).warnings() == [
        "the labels '1', '1.0' are one number written in several ways, and count as several labels"
    ]
