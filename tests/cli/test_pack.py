"""`unmask pack`: shards that `unmask pretrain` takes, with their tokenizer, and what is refused."""

from __future__ import annotations

import gzip
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from unmask.cli import _run
from unmask.data.shards import Shards
from unmask.locks import locked
from unmask.vocabulary.loading import load_any_tokenizer


@pytest.mark.parametrize("family", ["t5", "electra"])
def test_training_on_shards_is_training_on_the_text(
    family: str, corpus: Path, recipes: dict[str, Path], models: dict[str, Path], tmp_path: Path
) -> None:
    tokenizer = models[family].parent / "tokenizer"
    packed = str(tmp_path / "packed")
    arguments = ["pack", str(corpus), "--tokenizer", str(tokenizer), "--validation-share", "0.1"]
    assert _run([*arguments, "--out", packed]) == 0
    shards = Shards.open(packed, load_any_tokenizer(tokenizer))
    assert shards.checksum == Shards.open(models[family].parent / "data").checksum
    assert shards.train.by_line == (family == "electra")
    flags = ["--steps", "2", "--checkpoint-every", "0", "--threads", "1"]
    run = tmp_path / "run"
    assert _run(["pretrain", str(recipes[family]), "--data", packed, "--out", str(run), *flags]) == 0
    for file in models[family].rglob("model.safetensors"):
        ours = load_file(run / "model" / file.relative_to(models[family]))
        assert all(tensor.equal(ours[name]) for name, tensor in load_file(file).items())


def test_refused(corpus: Path, models: dict[str, Path], tmp_path: Path, refused: Callable[..., str]) -> None:
    tokenizer, out = models["t5"], tmp_path / "packed"
    arguments = ["pack", str(corpus), "--tokenizer", str(tokenizer), "--out", str(out)]
    assert _run([*arguments, "--shard-tokens", "500"]) == 0
    sizes = [file.stat().st_size // 2 for file in sorted(out.glob("train-*.tokens"))]
    assert len(sizes) > 3
    assert min(sizes[:-1]) >= 500 > max(sizes) - 100, "cut behind the document that fills a file"
    assert "--overwrite" in refused(*arguments)
    assert _run([*arguments, "--overwrite", "--validation-share", "0"]) == 0
    assert Shards.open(out).validation.documents == 0
    assert "--workers 0" in refused(*arguments, "--overwrite", "--workers", 0)
    assert "--shard-tokens 0" in refused(*arguments, "--overwrite", "--shard-tokens", 0)
    assert "validation share is 2" in refused(*arguments, "--overwrite", "--validation-share", 2)
    assert Shards.open(out).train.documents == 80, "what was there stays"
    assert not out.with_name("packed.partial").exists()
    other = refused(
        "pretrain", "t5-tiny", "--data", out, "--out", tmp_path / "run", "--tokenizer", models["electra"]
    )
    assert "holds a WordPiece vocabulary: T5 needs Unigram" in other
    with (out / "train-00000.tokens").open("r+b") as file:
        file.write(b"\xff")
    assert "is damaged: its checksum differs" in refused(
        "pretrain", "t5-tiny", "--data", out, "--out", tmp_path / "run"
    )


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "b.jsonl.gz": (gzip.compress(b'{"text": "bak del"}\n' * 500, mtime=0)[:-20], "cannot be read"),
    "b.jsonl.zst": (b"no zstandard", "cannot be read"),
    "b.parquet": (b"PAR1 no more", "cannot be read"),
    "b.csv": (b"text\nbak\nbak,del\n", "ends a row of 2 fields, the header has 1"),
    "b.jsonl": (b'{"text": "bak"}\n{"text":\n', "b.jsonl:2 is not JSON"),
    "b.txt": (b"bak \xff", "byte 0xff at position 4 is not UTF-8"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_inputs_are_named(
    name: str, corpus: Path, models: dict[str, Path], tmp_path: Path, refused: Callable[..., str]
) -> None:
    content, words = UNREADABLE[name]
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    (raw / "a.jsonl").write_bytes(corpus.read_bytes())
    (raw / name).write_bytes(content)
    train = ["tokenizer", "train", raw, "--kind", "unigram", "--vocab-size", 400]
    for command in (["pack", raw, "--tokenizer", models["t5"]], train):
        line = refused(*command, "--out", out)
        assert str(raw / name) in line
        assert words in line
        assert [path.name for path in tmp_path.iterdir()] == ["raw"], "nothing was begun"
    (raw / name).unlink()
    assert _run(["pack", str(raw), "--tokenizer", str(models["t5"]), "--out", str(out)]) == 0


def test_odd_inputs_and_places(
    corpus: Path, models: dict[str, Path], tmp_path: Path, refused: Callable[..., str]
) -> None:
    def pack(source: Path, out: Path = tmp_path / "out") -> str:
        return refused("pack", source, "--tokenizer", models["t5"], "--out", out)

    (tmp_path / "empty.txt").touch()
    assert "the corpus is empty: no document has a token" in pack(tmp_path / "empty.txt")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").touch()
    assert f"{tmp_path / 'pictures'} has no .txt" in pack(tmp_path / "pictures")
    assert f"{tmp_path / 'no'} does not exist" in pack(tmp_path / "no")
    assert "Not a directory" in pack(corpus, tmp_path / "empty.txt" / "out")
    assert "empty.txt exists and is not a directory of token shards" in pack(corpus, tmp_path / "empty.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "pictures"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_of_others(
    corpus: Path, models: dict[str, Path], tmp_path: Path, refused: Callable[..., str]
) -> None:
    secret = tmp_path / "secret.jsonl"
    secret.write_bytes(corpus.read_bytes())
    secret.chmod(0)
    line = refused("pack", secret, "--tokenizer", models["t5"], "--out", tmp_path / "out")
    assert f"{secret} cannot be read" in line
    assert [path.name for path in tmp_path.iterdir()] == [secret.name]


def test_no_room(unmask: Callable[..., Any], corpus: Path, models: dict[str, Path], tmp_path: Path) -> None:
    """A limit on the size of a file stands in for a full disk: to the program both are a write that fails."""
    out = tmp_path / "out"
    command = ["pack", corpus, "--tokenizer", models["t5"], "--out", out]
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))"
    code, _, error = unmask(*command, before=limit).wait()
    assert code == 2
    last = error.splitlines()[-1]
    assert last.startswith(f"error: [Errno 27] File too large: '{tmp_path}")
    assert not out.exists()
    assert unmask(*command).wait()[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_at_once(
    corpus: Path, models: dict[str, Path], tmp_path: Path, refused: Callable[..., str]
) -> None:
    arguments = ["pack", str(corpus), "--tokenizer", str(models["t5"]), "--out", str(tmp_path / "packed")]
    with locked(tmp_path / "packed.partial", "packed"):
        assert "another process is at work on" in refused(*arguments)
        assert "another process is at work on" in refused(*arguments, "--overwrite")
    assert _run(arguments) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]


# Parts of a few documents, so that a small corpus has many.
SMALL_PARTS = "from unmask.data import shard_writing; shard_writing.PART_CHARACTERS = 400"
#: Time to be killed in, however fast the machine.
SLOW_PARTS = """
import time
make = shard_writing._Packer.make
shard_writing._Packer.make = lambda self, part: (time.sleep(0.02), make(self, part))[1]
"""


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()
    }


def finished_parts(out: Path) -> int:
    return len(list(out.with_name(f"{out.name}.partial").glob("parts/*.json")))


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "begun": lambda out: out.with_name(f"{out.name}.partial").exists(),
    "a few parts": lambda out: finished_parts(out) >= 4,
    "most parts": lambda out: finished_parts(out) >= 20,
    "joining": lambda out: out.with_name(f"{out.name}.partial").joinpath("shards").exists(),
    "renamed": lambda out: out.exists(),
}


def test_killed_at_any_moment(
    unmask: Callable[..., Any], corpus: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    def start(out: Path, workers: int) -> Any:
        command = ["pack", corpus, "--tokenizer", models["t5"], "--out", out, "--workers", workers]
        return unmask(*command, before=f"{SMALL_PARTS}\n{SLOW_PARTS}")

    whole = start(tmp_path / "whole", 1)
    out = tmp_path / "out"
    hits = []
    for name, moment in MOMENTS.items():
        process = start(out, 2)
        while process.is_running and not moment(out):
            time.sleep(0.0002)
        process.kill(signal.SIGKILL)
        code, _, error = process.wait()
        assert code in (0, -signal.SIGKILL), error
        hits += [name] if code else []
        if out.exists() and not out.with_name("out.partial").exists():
            break
    assert len(hits) >= 3, hits
    if not out.exists() or out.with_name("out.partial").exists():
        code, shown, error = start(out, 2).wait()
        assert code == 0, error
        assert "checksum" in shown
    assert whole.wait()[0] == 0
    assert contents(out) == contents(tmp_path / "whole")
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("out", "whole")] == []


def test_interrupted_from_the_terminal(
    unmask: Callable[..., Any], corpus: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "corpus.jsonl").write_text(corpus.read_text() * 20)
    out = tmp_path / "out"
    command = ["pack", tmp_path / "corpus.jsonl", "--tokenizer", models["t5"], "--out", out]
    process = unmask(*command, "--workers", 2, before=f"{SMALL_PARTS}\n{SLOW_PARTS}")
    while process.is_running and finished_parts(out) < 3:
        time.sleep(0.001)
    process.kill(signal.SIGINT)
    code, shown, error = process.wait()
    assert (code, shown) == (130, "")
    assert error == "packing: stopped; the same command continues from here\n"
    assert finished_parts(out) >= 3
