"""`unmask corpus` as a user meets it: killed in every stage, its tables and its errors, and what reads its output."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datatrove", reason="needs the extra corpus: pip install 'unmask[corpus]'")

from unmask.cli import _run
from unmask.corpus.reading import read_documents
from unmask.locks import locked

FLAGS = ["--clean", "c4", "--without", "bad-words", "language", "--near-duplicates", "--exact-duplicates"]
STAGES = [
    "00-read",
    "02-duplicate-urls",
    "03-before-exact-duplicates",
    "05-before-duplicate-lines",
    "08-near-duplicates-pairs",
    "10-write",
]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of pages, some of them copies."""
    draw = random.Random(0)
    words = [first + second for first in "abcdefghij" for second in ("bak", "del", "fim", "gon")]

    def page() -> str:
        return "\n".join(" ".join(draw.choice(words) for _ in range(12)) + "." for _ in range(5))

    folder = tmp_path_factory.mktemp("raw")
    documents = [page() for _ in range(300)]
    documents += documents[::10] + [f"{text}\nwithout a mark" for text in documents[5::10]]
    for number in range(2):
        rows = [json.dumps({"text": text}) + "\n" for text in documents[number::2]]
        (folder / f"{number}.jsonl").write_text("".join(rows))
    return folder


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_killed_in_the_middle_of_stages(unmask: Callable[..., Any], raw: Path, tmp_path: Path) -> None:
    def start(out: Path) -> Any:
        return unmask("corpus", raw, "--out", out, *FLAGS, "--workers", 2)

    whole = start(tmp_path / "whole")
    out = tmp_path / "out"
    hits = 0
    for stage in STAGES:
        process = start(out)
        while process.is_running and not (out / ".work" / stage / "log").exists():
            time.sleep(0.001)
        process.kill(signal.SIGKILL)
        code, _, error = process.wait()
        assert code in (0, -signal.SIGKILL), error
        hits += code == -signal.SIGKILL and not (out / "corpus.json").exists()
    code, shown, error = start(out).wait()
    assert code == 0, error
    assert error == ""
    assert hits >= 3, "most kills came before the end"
    code, expected, _ = whole.wait()
    assert code == 0
    assert contents(out) == contents(tmp_path / "whole")
    assert shown.replace(str(out), "") == expected.replace(str(tmp_path / "whole"), "")


def test_interrupted_from_the_terminal(unmask: Callable[..., Any], raw: Path, tmp_path: Path) -> None:
    process = unmask("corpus", raw, "--out", tmp_path / "out", *FLAGS, "--workers", 2)
    while process.is_running and not (tmp_path / "out" / ".work" / "01-before-duplicate-urls").exists():
        time.sleep(0.001)
    process.kill(signal.SIGINT)
    code, out, error = process.wait()
    assert (code, out) == (130, "")
    assert error == "stopped: the same command continues from here\n"


def test_report_and_output(
    unmask: Callable[..., Any], raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "words.txt").write_text("abak adel afim\n")
    out = tmp_path / "out"
    flags = [
        "--clean",
        "c4",
        "--bad-words",
        str(tmp_path / "words.txt"),
        "--without",
        "language",
        "--validation-share",
        "0.1",
    ]
    assert _run(["corpus", str(raw), "--out", str(out), *flags, "--workers", "1"]) == 0
    shown = capsys.readouterr().out
    assert "line: no end mark" in shown
    assert f"report: {out / 'report.html'}" in shown
    page = (out / "report.html").read_text()
    for text in (
        "without a mark",
        "line: repeated",
        "Documents by length",
        "C4&#39;s rules for lines and pages",
    ):
        assert text in page
    numbers = json.loads((out / "corpus.json").read_text())["ledger"]["steps"]
    written = {step["name"]: step["documents_out"] for step in numbers}
    assert written["train"] == sum(1 for _ in read_documents(out / "train"))
    assert written["validation"] == sum(1 for _ in read_documents(out / "validation")) > 0


def test_two_at_once(refused: Callable[..., str], raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with locked(out / ".work", "out"):
        assert "another process is at work on" in refused("corpus", raw, "--out", out, "--workers", 1)
    assert _run(["corpus", str(raw), "--out", str(out), "--workers", "1"]) == 0
    assert not (out / ".work").exists()


def test_errors_are_one_line(refused: Callable[..., str], raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "--bad-words FILE, or --without bad-words" in refused("corpus", raw, "--out", out, "--clean", "c4")
    gone = tmp_path / "gone.txt"
    assert "gone.txt cannot be read" in refused("corpus", raw, "--out", out, "--bad-words", gone)
    assert "gone.txt does not exist" in refused("corpus", raw, "--out", out, "--against", gone)
    assert "it must be at least 1" in refused("corpus", raw, "--out", out, "--workers", 0)
    assert "langdetect knows no language 'xx'" in refused("corpus", raw, "--out", out, "--language", "xx")
    assert not out.exists()
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\nb\n')
    for workers in (1, 2):
        message = refused("corpus", tmp_path / "bad.jsonl", raw, "--out", out, "--workers", workers)
        assert "bad.jsonl:2 is not JSON" in message
        assert "--corrupt skip" in message
