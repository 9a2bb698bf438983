"""The commands of docs/decoding.md, each run as it is written."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from unmask.cli import _run

DOCS = Path(__file__).parents[2] / "docs" / "decoding.md"
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    for line in block.splitlines()
    # Not the benchmarks, which take minutes.
    if line and not line.startswith(("bash benchmarks/", "python benchmarks/"))
]


@pytest.fixture
def place(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with all that the commands name."""
    texts = ["abak bdel cfim", "dgon", "abak abak"]
    shutil.copytree(models["t5"], tmp_path / "runs" / "task" / "model")
    shutil.copytree(models["electra"], tmp_path / "runs" / "electra" / "model")
    (tmp_path / "folder").mkdir()
    for name in ("questions.txt", "large.txt", "folder/a.txt", "labels.txt"):
        (tmp_path / name).write_text("".join(f"{text}\n" for text in texts))
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps({"question": t}) + "\n" for t in texts))
    (tmp_path / "more.csv").write_text("question\n" + "".join(f"{text}\n" for text in texts))
    (tmp_path / "schema.json").write_text(json.dumps({"enum": ["a", "b"]}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"abak\nbdel\n")))
    return tmp_path


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 20


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_runs_as_it_is_written(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(line.removeprefix("cat questions.txt | "), comments=True)
    assert words[:2] == ["unmask", "generate"]
    if "--regex" in words or "--json-schema" in words:
        pytest.importorskip("llguidance")
    code = _run([*words[1:], "--threads", "1"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    out = Path(words[words.index("--out") + 1]) if "--out" in words else None
    assert out.exists() if out is not None else captured.out.strip()
