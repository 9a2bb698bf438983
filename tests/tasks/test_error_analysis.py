"""Where a system is wrong, and the report of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unmask.errors import UserError
from unmask.report import render_page
from unmask.tasks.error_analysis import VALUES, by_length, by_value, confusion, worst_rows
from unmask.tasks.evaluation import HeldOut
from unmask.tasks.evaluation_files import write_scores
from unmask.tasks.evaluation_report import OTHER, THIS, Report
from unmask.tasks.kinds import Prediction, Row
from unmask.tasks.rows import read_rows
from unmask.tasks.task import Task

LABELS = Task("t", "classification", ("text",), "label", Path("t.csv"))


def rows(targets: str, lengths: list[int] | None = None) -> list[Row]:
    sizes = lengths or [1] * len(targets)
    return [
        Row(n, ("x" * size,), (target,))
        for n, (target, size) in enumerate(zip(targets, sizes, strict=True), 1)
    ]


def test_confusion_counts_answers_by_label() -> None:
    found = confusion(rows("aaab"), list("aabb"))
    assert found.labels == ["a", "b"] and found.counts == [[2, 1], [0, 1]]
    # A class that is never predicted, and one that is never right.
    assert confusion(rows("ab"), ["a", "c"]).counts == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert confusion(rows("aab"), list("aab"), most=1).labels == ["a"]


def test_the_surest_mistakes_come_first() -> None:
    held_out = HeldOut(LABELS, (), rows("abab"))
    found = [Prediction("a", 0.99), Prediction("a", 0.6), Prediction("b", 0.9), Prediction("b", 0.9)]
    assert worst_rows(held_out, found) == [2, 1]
    assert worst_rows(held_out, found, most=1) == [2]


def test_the_worst_of_other_kinds() -> None:
    numbers = HeldOut(Task("t", "regression", ("a",), "b"), (), rows("135"))
    assert worst_rows(numbers, [Prediction("1"), Prediction("0"), Prediction("4")], most=2) == [1, 2]
    texts = HeldOut(Task("t", "text-to-text", ("a",), "b", metrics=("exact_match",)), (), rows("abc"))
    assert worst_rows(texts, [Prediction("a"), Prediction(""), Prediction("x")]) == [1, 2]
    tags = HeldOut(
        Task("t", "tagging", ("a",), "b"), (), [Row(1, ("x y",), ("O O",)), Row(2, ("x y",), ("B-a O",))]
    )
    assert worst_rows(tags, [Prediction("O O"), Prediction("O O")]) == [1]


def test_slices_hold_every_row_once_and_keep_equal_lengths_together() -> None:
    lengths = [5, 1, 1, 1, 1, 2, 9, 3]
    held_out = HeldOut(LABELS, (), rows("abababab", lengths))
    slices = by_length(held_out, list("aaaaaaaa"))
    assert sum(part.evaluation.rows for part in slices) == 8
    assert [(part.name, part.evaluation.rows) for part in slices] == [
        ("1 to 1", 4),
        ("2 to 3", 2),
        ("5 to 9", 2),
    ]
    assert [part.evaluation.scores["accuracy"] for part in slices] == [0.5, 0.0, 1.0]
    assert len(by_length(HeldOut(LABELS, (), rows("a")), ["a"])) == 1


def phenomena(tmp_path: Path) -> Task:
    """Minimal pairs of two fields, with one more column that is no slice."""
    path = tmp_path / "pairs.csv"
    path.write_text("good,bad,field,n\nA,B,syntax,1\nC,D,,2\nE,F,syntax,3\nG,H,syntax,4\n")
    return Task("t", "minimal-pairs", ("good", "bad"), test=path, slices=("field",))


def test_rows_of_each_value_are_scored_by_themselves(tmp_path: Path) -> None:
    task = phenomena(tmp_path)
    held_out = HeldOut.read(task, "test")
    assert [row.slices for row in held_out.rows] == [("syntax",), ("",), ("syntax",), ("syntax",)]
    slices = by_value(held_out, list("0110"), "field")
    assert [(part.name, part.evaluation.rows) for part in slices] == [("", 1), ("syntax", 3)]
    assert [part.evaluation.scores["accuracy"] for part in slices] == [0, pytest.approx(2 / 3)]
    found = [Prediction(answer) for answer in "0110"]
    evaluations = {"the shorter one": held_out.score(list("1111")), THIS: held_out.score(list("0110"))}
    report = Report(held_out, "runs/a", None, evaluations, found, {})
    assert [row[:2] for row in report.tables()[-1].rows] == [("(none)", 1), ("syntax", 3)]
    both = Report(held_out, "a", "b", evaluations | {OTHER: held_out.score(list("0000"))}, found, {})
    assert "accuracy of the other model" in render_page(both.page())
    write_scores(tmp_path / "scores.json", both)
    written = json.loads((tmp_path / "scores.json").read_text())["slices"]["field"]
    assert written[OTHER]["syntax"]["rows"] == 3
    assert written[OTHER]["syntax"]["scores"]["accuracy"]["score"] == 1


def test_of_many_values_the_most_frequent_are_scored() -> None:
    task = Task("t", "classification", ("text",), "label", slices=("n",))
    names = [str(n) for n in range(VALUES + 1)] + [str(VALUES)]
    held_out = HeldOut(task, (), [Row(1, ("x",), ("a",), slices=(name,)) for name in names])
    slices = by_value(held_out, ["a"] * len(names), "n")
    assert (
        len(slices) == VALUES
        and {str(VALUES): 2}.items() <= {one.name: one.evaluation.rows for one in slices}.items()
    )


def test_slices_are_read_only_to_judge_and_their_columns_have_to_be_there(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nx,a\ny,b\n")
    task = Task("t", "classification", ("text",), "label", train=path, test=path, slices=("genre",))
    assert [row.slices for row in read_rows(task, "train")] == [(), ()]
    with pytest.raises(UserError, match=r"has no column 'genre': there are 'text', 'label'"):
        HeldOut.read(task, "test")


def test_the_page_has_all_of_it() -> None:
    held_out = HeldOut(LABELS, (), rows("abab", [1, 2, 3, 4]))
    found = [Prediction("a", 0.9), Prediction("a", 0.8), Prediction("a", 0.7), Prediction("b", 0.6)]
    evaluations = {THIS: held_out.score([one.text for one in found]), OTHER: held_out.score(list("aaaa"))}
    differences = held_out.differences(evaluations[THIS], evaluations[OTHER])
    assert differences["accuracy"].value == 0.25 and differences["accuracy"].low >= 0
    page = render_page(Report(held_out, "runs/a", "runs/b", evaluations, found, differences).page())
    for text in (
        "Confusion",
        "By length",
        "Worst answers",
        "80% sure",
        "this model minus the other model",
        "runs/b",
    ):
        assert text in page, text


def test_the_label_of_f1_is_the_tasks_whichever_rows_are_judged(tmp_path: Path) -> None:
    task = Task("t", "classification", ("text",), "label", metrics=("f1",))
    judged = HeldOut(task, (Row(1, ("x",), ("b",)),), (Row(1, ("y",), ("a",)),))
    assert judged.score(["a"]).scores == {"f1": 0.0}
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("text,label\nx,good\ny,bad\n")
    files = {split: tmp_path / f"{split}.csv" for split in ("train", "test")}
    mistyped = Task("t", "classification", ("text",), "label", **files, metrics=("f1",), positive="Good")
    with pytest.raises(
        UserError, match="no row has the label 'Good' that `positive` names; did you mean 'good'"
    ):
        HeldOut.read(mistyped, "test")
