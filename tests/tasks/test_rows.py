from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.errors import UserError
from unmask.tasks.kinds import Row
from unmask.tasks.rows import check_labels, read_rows
from unmask.tasks.tables import read_columns
from unmask.tasks.task import Task
from unmask.tasks.texts import TextFile

FORMATS = ("csv", "tsv", "jsonl", "ndjson", "json", "parquet")


def encoded(kind: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """A file of that kind as other programs write it."""
    if kind == "parquet":
        out = io.BytesIO()
        pq.write_table(pa.table({name: [row[i] for row in rows] for i, name in enumerate(header)}), out)
        return out.getvalue()
    if kind in ("csv", "tsv"):
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter="," if kind == "csv" else "\t")
        writer.writerows([header, *rows])
        return text.getvalue().encode()
    lines = [json.dumps(dict(zip(header, row, strict=True)), ensure_ascii=False) + "\n" for row in rows]
    return "".join(lines).encode()


def task_of(path: Path, kind: Any = "text-to-text", source: Sequence[str] = ("source",)) -> Task:
    return Task("t", kind, tuple(source), "target", train=path, test=path)


# What a file can hold: any text that is more than white space.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path: Path, kind: str, compressed: bool) -> None:
    rows = [["x", 'a, "b"\nc', "é"], ["z", "NA", "2020-01-01"], ["y", " null ", "训练\tz"]]
    data = encoded(kind, ["other", "source", "target"], rows)
    path = tmp_path / (f"rows.{kind.upper()}" + ".gz" * compressed)
    path.write_bytes(gzip.compress(data) if compressed else data)
    wanted = [Row(n, (source,), (target,)) for n, (_, source, target) in enumerate(rows, start=1)]
    assert read_rows(task_of(path), "train") == wanted


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FORMATS), st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6))
def test_any_text_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, kind: str, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("rows") / f"rows.{kind}"
    path.write_bytes(encoded(kind, ["source", "target"], rows))
    assert read_columns(path, ["target", "source"]) == [[t for _, t in rows], [s for s, _ in rows]]


def test_several_source_columns_keep_the_tasks_order(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("b,target,a\n1,x,2\n", encoding="utf-8")
    assert read_rows(task_of(path, source=["a", "b"]), "test") == [Row(1, ("2", "1"), ("x",))]


def test_numbers_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1, "b": true}\n\n{"a": "one", "b": 0.5}\n', encoding="utf-8")
    assert read_columns(path, ["a", "b"]) == [["1", "one"], ["true", "0.5"]]
    path = tmp_path / "rows.parquet"
    labels = pa.array(["x", "y", "x"]).dictionary_encode()
    pq.write_table(pa.table({"a": [1, 2, 3], "b": labels}), path)
    assert read_columns(path, ["a", "b"]) == [["1", "2", "3"], ["x", "y", "x"]]


@pytest.mark.parametrize("values", [["1.0", "007"], ["2020-01-01", "2020-01-02"], ["true", "false"]])
def test_a_column_of_what_looks_like_something_else_stays_text(tmp_path: Path, values: list[str]) -> None:
    for kind in FORMATS:
        path = tmp_path / f"rows.{kind}"
        path.write_bytes(encoded(kind, ["a"], [[value] for value in values]))
        assert read_columns(path, ["a"]) == [values]


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    for name, text in (("a.csv", "source,target\nx,y\n"), ("a.jsonl", '{"source": "x", "target": "y"}\n')):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8-sig")
        assert read_rows(task_of(path), "train") == [Row(1, ("x",), ("y",))]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_columns_of_a_csv_without_commas_in_its_header(separator: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"source{separator}target\r\nx, 1{separator}y\r\n", encoding="utf-8-sig", newline="")
    assert read_rows(task_of(path), "train") == [Row(1, ("x, 1",), ("y",))]
    assert list(TextFile(path, "source")) == ["x, 1"]
    # Commas decide where there are any.
    path.write_text("source,target;b\nx;1,y\n")
    assert read_columns(path, ["source", "target;b"]) == [["x;1"], ["y"]]
    assert list(TextFile(path, "source")) == ["x;1"]


def test_a_row_longer_than_a_block_is_read(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    long = "word " * 600_000 + "end"
    path.write_bytes(encoded("csv", ["source", "target"], [["a", "b"], [long, "c"], ["d", "e"]]))
    assert [row.sources[0] for row in read_rows(task_of(path), "train")] == ["a", long, "d"]


def test_rows_of_one_source_are_grouped_for_judging_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("source,target\ns1,a\ns2,b\ns1,c\ns1,a\n", encoding="utf-8")
    grouped = read_rows(task_of(path), "test", grouped=True)
    assert grouped == [Row(1, ("s1",), ("a", "c", "a")), Row(2, ("s2",), ("b",))]
    assert [row.target for row in read_rows(task_of(path), "train")] == ["a", "b", "c", "a"]
    labels = read_rows(task_of(path, "classification"), "test", grouped=True)
    assert [row.references for row in labels] == [("a",), ("b",), ("c",), ("a",)], "a row has one label"


def test_labels_are_the_sorted_set_of_training(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("source,target\nq,b\nq,a\nq,b\n", encoding="utf-8")
    task = task_of(path, "classification")
    rows = read_rows(task, "train")
    assert task.its_kind.labels(task, rows) == ("a", "b")
    check_labels(task, "test", rows, ("a", "b"))
    with pytest.raises(
        UserError, match=r"rows\.csv, row 2: no training row has the label 'a' \(known are 'b', 'c'\)"
    ):
        check_labels(task, "test", rows, ("b", "c"))
    with pytest.raises(UserError, match="all 1 training rows have the label 'b'"):
        task.its_kind.labels(task, rows[:1])


GOOD = b"source,target\na,b\nc,d\n"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("rows.csv", b"", "is empty"),
        ("rows.csv", b" \n\n", "is empty"),
        ("rows.csv.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("rows.csv", b"source,target\n", "holds no rows"),
        ("rows.csv", b"sentence;label\na;b\n", "has no column 'source': there are 'sentence', 'label'"),
        ("rows.csv", b"source,label\na,b\n", "has no column 'target': there are 'source', 'label'"),
        ("rows.csv", b"source,target,target\na,b,c\n", "has 2 columns named 'target'"),
        (
            "rows.csv",
            GOOD + b"e\n",
            "cannot be read as CSV: CSV parse error: Row #4: Expected 2 columns, got 1",
        ),
        ("rows.csv", GOOD + "café,x\n".encode("latin-1"), ", line 4: byte 0xe9 is not UTF-8"),
        ("rows.csv", GOOD.decode().encode("utf-16"), ", line 1: byte 0xff is not UTF-8"),
        ("rows.csv", GOOD + b",x\n", ", row 3: the column 'source' has no value"),
        ("rows.csv", GOOD + b"x,  \ny,\n", ", row 3: the column 'target' has no value"),
        ("rows.csv.gz", GOOD, "cannot be read: Not a gzipped file"),
        ("rows.csv.gz", gzip.compress(GOOD, mtime=0)[:-9], "cannot be read: Compressed file ended"),
        ("rows.jsonl", b'{"source": "a"}\n', "has no column 'target': there are 'source'"),
        (
            "rows.jsonl",
            b'{"source": "a", "target": "b"}\n{"source": "a"}\n',
            ", row 2: the column 'target' has no",
        ),
        ("rows.jsonl", b'{"source": "a", "target": NaN}\n', ", row 1: the column 'target' has no value"),
        (
            "rows.jsonl",
            b'{"source": "a", "target": {"b": 1}}\n',
            ", row 1: the column 'target' holds dict, not a text",
        ),
        ("rows.jsonl", b'{"source": "a", "target": "b"}\n{"source"\n', ", line 2: not JSON"),
        ("rows.json", b'[{"source": "a"}]\n', ", line 1: one JSON object a line is read, not list"),
        ("rows.jsonl", b'{"source": "caf\xe9"}\n', ", line 1: byte 0xe9 is not UTF-8"),
        ("rows.parquet", b"PAR1 nonsense", "cannot be read as Parquet"),
        ("rows.parquet", encoded("parquet", ["a"], [["x"]]), "has no column 'source': there are 'a'"),
        (
            "rows.parquet",
            encoded("parquet", ["source", "target"], [["a", None]]),
            ", row 1: the column 'target' has no",
        ),
        ("rows.xlsx", b"PK", "unknown format; a name ends in one of .csv, .tsv"),
        ("rows", GOOD, "unknown format"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        read_rows(task_of(path), "train")
    assert str(error.value).startswith(str(path)) and message in str(error.value), str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*absent\.csv"):
        read_rows(task_of(tmp_path / "absent.csv"), "train")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match=r"folder\.csv is a directory"):
        read_rows(task_of(tmp_path / "folder.csv"), "train")


def test_the_published_restaurants_have_630_meanings(shared_data: Path) -> None:
    folder = shared_data / "tasks" / "e2e"
    task = Task(
        "e2e", "text-to-text", ("meaning",), "text", folder / "train.csv.gz", test=folder / "test.csv.gz"
    )
    groups = read_rows(task, "test", grouped=True)
    assert len(groups) == 630 and sum(len(row.references) for row in groups) == 4693
    assert len(read_rows(task, "train")) == 4672
