"""A task from one table."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from unmask.errors import UserError
from unmask.tasks.new_task import NewTask, new_task
from unmask.tasks.rows import read_rows
from unmask.tasks.task import SPLITS, load_task


def table(path: Path, header: list[str], rows: list[tuple[object, ...]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def reviews(count: int = 60) -> list[tuple[object, ...]]:
    return [(f'review {n}, "quoted"', "good" if n % 2 else "bad") for n in range(count)]


def made(tmp_path: Path, header: list[str], rows: list[tuple[object, ...]], **options: object) -> NewTask:
    return new_task(table(tmp_path / "data.csv", header, rows), tmp_path / "data", **options)  # type: ignore[arg-type]


def test_two_columns_make_a_task_with_three_splits(tmp_path: Path) -> None:
    found = made(tmp_path, ["review", "sentiment"], reviews())
    task = load_task(found.path)
    assert (task.name, task.kind, task.source, task.target) == (
        "data",
        "classification",
        ("review",),
        "sentiment",
    )
    rows = [row for split in SPLITS for row in read_rows(task, split)]
    assert sorted((row.sources[0], row.target) for row in rows) == sorted(reviews())
    assert found.rows == {split: len(read_rows(task, split)) for split in SPLITS}
    assert found.labels == {"good": 30, "bad": 30} and found.dropped == 0
    assert found.rows["train"] > 30


def test_which_split_a_row_is_in_depends_on_its_source_alone(tmp_path: Path) -> None:
    rows = reviews()
    first = made(tmp_path, ["review", "label"], rows)
    again = table(tmp_path / "more.csv", ["label", "review"], [(b, a) for a, b in [*reversed(rows), *rows]])
    second = new_task(again, tmp_path / "more")
    for split in SPLITS:
        texts = {row.sources[0] for row in read_rows(load_task(first.path), split)}
        assert {row.sources[0] for row in read_rows(load_task(second.path), split)} == texts


def test_a_rare_label_is_in_training(tmp_path: Path) -> None:
    rare = [(f"odd {n}", f"rare{n}") for n in range(8)]
    found = made(tmp_path, ["text", "label"], [*reviews(80), *rare], kind="classification")
    train = {row.target for row in read_rows(load_task(found.path), "train")}
    assert {f"rare{n}" for n in range(8)} <= train


@pytest.mark.parametrize(
    ("header", "rows", "kind", "source", "target"),
    [
        (["label", "text"], [(n % 3, f"t {n}") for n in range(60)], "classification", ("text",), "label"),
        (["a", "b"], [(f"t {n}", "xy"[n % 2]) for n in range(60)], "classification", ("a",), "b"),
        (["a", "b"], [("xy"[n % 2], f"t {n}") for n in range(60)], "classification", ("b",), "a"),
        # A small table whose column says what it is.
        (
            ["a", "label"],
            [(f"t {n}", "stuvwxy"[n % 7]) for n in range(20)],
            "classification",
            ("a",),
            "label",
        ),
        (["text", "score"], [(f"t {n}", n / 7) for n in range(60)], "regression", ("text",), "score"),
        (
            ["question", "answer"],
            [(f"q {n}", f"a {n}") for n in range(60)],
            "text-to-text",
            ("question",),
            "answer",
        ),
        (
            ["one", "two", "label"],
            [(n, -n, n % 2) for n in range(60)],
            "pair-classification",
            ("one", "two"),
            "label",
        ),
    ],
)
def test_what_a_table_is_is_seen(
    header: list[str],
    rows: list[tuple[object, ...]],
    kind: str,
    source: tuple[str, ...],
    target: str,
    tmp_path: Path,
) -> None:
    found = made(tmp_path, header, rows)
    assert (found.kind, found.source, found.target) == (kind, source, target)
    assert load_task(found.path).kind == kind


@pytest.mark.parametrize(
    ("header", "rows", "options", "message"),
    [
        (["a", "b"], reviews(), {"target": "c"}, "has no column 'c': there are 'a', 'b'"),
        (["a", "b"], reviews(), {"source": ["c"]}, "has no column 'c'"),
        (
            ["a", "b", "c"],
            [(1, 2, 3)] * 9,
            {},
            "say which to read and which to answer, with --source and --target",
        ),
        (["a", "b", "c", "label"], [(1, 2, 3, 4)] * 9, {}, "to read: say which, with --source"),
        (["a"], [("x",)] * 9, {}, "has one column, 'a'"),
        (
            ["a", "label"],
            [("x", "y")] * 9,
            {"kind": "classification"},
            "every row has the label 'y' in 'label'",
        ),
        (
            ["a", "label"],
            [("x", "y"), ("z", "w")],
            {"kind": "classification"},
            "2 rows are too few for three splits",
        ),
        (["a", "answer"], [("x", "y")], {"kind": "text-to-text"}, "one row is too few for three splits"),
        (["a", "label"], [("x", "")], {}, "every row has an empty column"),
        (["a", "b"], reviews(), {"kind": "regression"}, "regression learns numbers, and 'b' holds 'bad'"),
        (["a", "b"], reviews(), {"source": ["a", "a"]}, "the column 'a' is named twice"),
        (["a", "b"], reviews(), {"source": ["a"], "target": "a"}, "the column 'a' is named twice"),
        (["a", "label"], reviews(), {"held_out": 0.7}, "held_out is 0.7: give a share above 0 and below 0.5"),
        (
            ["a", "label"],
            reviews(),
            {"kind": "classifier"},
            "no kind 'classifier'; did you mean 'classification'?",
        ),
    ],
)
def test_what_cannot_be_made_is_said(
    header: list[str],
    rows: list[tuple[object, ...]],
    options: dict[str, object],
    message: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError) as error:
        made(tmp_path, header, rows, **options)
    assert message in str(error.value) and not (tmp_path / "data").exists()


def test_numbers_of_rows_are_not_read(tmp_path: Path) -> None:
    rows = [(number, *row) for number, row in enumerate(reviews())]
    found = made(tmp_path, ["", "text", "label"], rows)
    assert (found.source, found.target, found.ignored) == (("text",), "label", ("",))
    asked = new_task(
        table(tmp_path / "ids.csv", ["ID", "text", "label"], rows), tmp_path / "asked", source=["ID", "text"]
    )
    assert (asked.source, asked.ignored) == (("ID", "text"), ())
    with pytest.raises(UserError, match="has one column, 'label' beside one without a name: there must be"):
        new_task(table(tmp_path / "unnamed.csv", ["", "label"], reviews()), tmp_path / "unnamed")


def test_a_table_without_names_of_columns_is_seen(tmp_path: Path) -> None:
    rows = reviews()
    with pytest.raises(
        UserError, match="the first line has to name the columns, and 'bad' there is also one"
    ):
        made(tmp_path, ["a review", "bad"], rows)
    assert made(tmp_path, ["a review", "bad"], rows, target="bad").target == "bad"


def test_a_column_that_is_there_twice_is_said_where_it_matters(tmp_path: Path) -> None:
    rows = [(*row, *row) for row in reviews()]
    with pytest.raises(UserError, match="has 2 columns named 'x'"):
        made(tmp_path, ["text", "label", "x", "x"], rows)
    found = made(tmp_path, ["text", "label", "x", "x"], rows, source=["text"], target="label")
    assert found.source == ("text",)


def test_a_directory_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match="is there already: name another directory with --out"):
        made(tmp_path, ["a", "b"], reviews())


def test_rows_with_an_empty_column_are_left_out(tmp_path: Path) -> None:
    found = made(tmp_path, ["a", "label"], [*reviews(), ("", "good"), ("x", "")])
    assert found.dropped == 2 and sum(found.rows.values()) == 60


@pytest.mark.parametrize(
    ("times", "step"), [(5 / 59, "0.2"), (0.71 / 59, "0.02"), (1.2e6 / 59, "20000.0"), (3e-6 / 59, "1e-07")]
)
def test_numbers_of_any_size_get_a_step(times: float, step: str, tmp_path: Path) -> None:
    found = made(tmp_path, ["text", "price"], [(f"t {n}", n * times) for n in range(60)])
    assert f"\nstep = {step}  # of what a T5 writes\n" in found.path.read_text()
    task = load_task(found.path)
    rows = read_rows(task, "train")
    labels = task.its_kind.labels(task, rows)
    assert 20 <= len(labels) <= 65 and len(set(labels)) == len(labels)
    assert {task.its_kind.target_text(task, row) for row in rows} <= set(labels)


def test_any_name_of_a_column_is_written(tmp_path: Path) -> None:
    found = made(tmp_path, ['a "b"\x7f\t', "label"], reviews())
    assert load_task(found.path).source == ('a "b"\x7f\t',)
