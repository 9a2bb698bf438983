"""Reading documents: every kind of input, and one clear line for every way in which it can be wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from unmask.corpus.reading import Document, read_cells, read_documents
from unmask.errors import UserError


def _jsonl(*rows: object) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_bytes("\ufeffline one\r\nzwei\n".encode())
    (tmp_path / "b" / "c.txt.gz").write_bytes(gzip.compress(b"packed"))
    (tmp_path / "b" / "d.jsonl").write_bytes(
        _jsonl({"id": 7, "text": "é"}) + b"\n" + _jsonl({"text": "y\r\nz"})
    )
    (tmp_path / "e.JSONL.GZ").write_bytes(gzip.compress(_jsonl({"text": "w"}, {"text": " \n"})))
    (tmp_path / "notes.md").write_text("not an input")
    (tmp_path / ".hidden.txt").write_text("hidden")
    return tmp_path


def test_directory_is_read_recursively_in_order(folder: Path) -> None:
    assert list(read_documents(folder)) == [
        Document(str(folder / "a.txt"), "line one\nzwei\n"),
        Document(str(folder / "b" / "c.txt.gz"), "packed"),
        Document("7", "é"),
        Document(f"{folder / 'b' / 'd.jsonl'}:3", "y\nz"),
        Document(f"{folder / 'e.JSONL.GZ'}:1", "w"),
    ]


def test_globs_and_repeated_paths_read_each_file_once(folder: Path) -> None:
    texts = [d.text for d in read_documents([folder / "*", str(folder / "a.txt"), folder / "**" / "*.gz"])]
    assert texts == ["line one\nzwei\n", "packed", "é", "y\nz", "w"]


def test_text_column(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(_jsonl({"body": "b", "text": "t"}))
    assert [d.text for d in read_documents(tmp_path, text_column="body")] == ["b"]


def _zstd(content: bytes) -> bytes:
    return pyarrow.compress(content, codec="zstd", asbytes=True)


def test_csv(tmp_path: Path) -> None:
    long = "word " * 50_000  # beyond the csv module's own limit of a field
    (tmp_path / "x.csv").write_bytes(
        f'\ufeffurl,text,id\r\nhttp://a,"two ""lines""\r\nof text",7\r\n\r\n,{long},\r\n'.encode()
    )
    assert list(read_documents(tmp_path / "x.csv")) == [
        Document("7", 'two "lines"\nof text', "http://a"),
        Document(f"{tmp_path / 'x.csv'}:5", long),
    ]


def test_parquet(tmp_path: Path) -> None:
    table = pyarrow.table({"n": range(600), "text": [f"text {n}" for n in range(600)], "url": ["u"] * 600})
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=100)
    documents = list(read_documents(tmp_path))
    assert [document.text for document in documents] == table["text"].to_pylist()
    assert documents[299] == Document(f"{tmp_path / 'x.parquet'}:300", "text 299", "u")


def test_zstandard_with_several_frames(tmp_path: Path) -> None:
    rows = _jsonl(*({"text": f"document {n}"} for n in range(3000)))
    (tmp_path / "x.jsonl.zst").write_bytes(_zstd(rows) + _zstd(rows))
    assert len(list(read_documents(tmp_path))) == 6000


def test_text_by_line(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes("\ufeffone\r\n\n zwei".encode())
    assert list(read_documents(tmp_path, by_line=True)) == [
        Document(f"{tmp_path / 'x.txt'}:1", "one"),
        Document(f"{tmp_path / 'x.txt'}:3", " zwei"),
    ]


def test_cells_are_every_text_of_a_row(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(_jsonl({"n": 1, "question": "q", "answers": {"text": ["a", "b"]}}))
    (tmp_path / "y.csv").write_text("meaning,sentence\nm,s\n")
    assert list(read_cells([tmp_path])) == ["q", "a", "b", "m", "s"]


def test_files_are_read_one_document_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(_jsonl({"text": "good"}) + b"broken\n")
    documents = read_documents(tmp_path)
    assert next(documents).text == "good"
    with pytest.raises(UserError, match=r"x\.jsonl:2 is not JSON"):
        next(documents)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"text": "a"}\n[1]\n', r"x\.jsonl:2 is not a JSON object"),
        ("x.jsonl", b'{"body": "a", "n": 1}\n', r"x\.jsonl:1 has no column 'text'; it has 'body', 'n'"),
        ("x.jsonl", b'{"text": null}\n', r"x\.jsonl:1: column 'text' holds NoneType, not text"),
        ("x.jsonl", b'{"text": "\\ud800"}\n', r"x\.jsonl:1: column 'text' has a lone surrogate at 0"),
        (
            "x.jsonl",
            b'{"text": "a"}\n{"text": "\xff"}\n',
            r"x\.jsonl:2: byte 0xff at position 10 is not UTF-8",
        ),
        ("x.jsonl", b"[" * 100_000, r"x\.jsonl:1 is not JSON"),
        ("x.txt", "\ufeffab".encode() + b"\xe9", r"x\.txt: byte 0xe9 at position 5 is not UTF-8"),
        ("x.txt", b" \n\t\n", r"no document has any text in .*x\.txt"),
        ("x.txt.gz", b"not gzip", r"x\.txt\.gz cannot be read"),
        ("x.jsonl.zst", b"not zstd", r"x\.jsonl\.zst cannot be read"),
        ("x.jsonl.zst", _zstd(b'{"text": "a"}\n' * 999)[:-3], r"x\.jsonl\.zst cannot be read: Truncated"),
        ("x.csv", b"text,n\na,1\nb\n", r"x\.csv:3 ends a row of 1 fields, the header has 2"),
        ("x.csv", b'text\n"a"b\n', r"x\.csv:2 is not CSV"),
        ("x.csv", b"text\na\n\xff\n", r"x\.csv: byte 0xff after line 0 is not UTF-8"),
        ("x.csv", b"body\na\n", r"x\.csv:2 has no column 'text'; it has 'body'"),
        ("x.parquet", b"not parquet", r"x\.parquet cannot be read"),
        (
            "x.jsonl.gz",
            gzip.compress(b'{"text": "a"}\n' * 999, mtime=0)[:-20],
            r"x\.jsonl\.gz cannot be read",
        ),
    ],
)
def test_damaged_input_is_one_clear_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(read_documents(tmp_path))
    assert "\n" not in str(caught.value)


def test_paths_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "empty").mkdir()
    for path, message in [
        (tmp_path / "gone", "gone does not exist"),
        (tmp_path / "*.txt", r"\*\.txt has no \.txt, \.jsonl"),
        (tmp_path / "notes.md", r"notes\.md is none of \.txt, \.jsonl"),
        (tmp_path / "empty", r"empty has no \.txt, \.jsonl"),
    ]:
        with pytest.raises(UserError, match=message):
            read_documents(path)
    with pytest.raises(UserError, match="no input was given"):
        read_documents([])


def test_reads_the_reference_corpora(shared_data: Path) -> None:
    documents = list(read_documents(shared_data / "corpus" / "en.wikitext2-valid.jsonl.gz"))
    assert len(documents) == 60
    assert all(document.id and document.text for document in documents)
