"""Packing in parts: stopped, damaged, spread over processes, it gives the bytes of one undisturbed pass."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numbered_corpus import NumberTokenizer

from unmask.data import shard_writing
from unmask.data.shard_writing import Files, write_shards
from unmask.data.shards import Shards
from unmask.errors import UserError

FILES = 3
DOCUMENTS = 20


class Corpus:
    """Three files of documents of two lines; counts what is read, and fails at a document if told so."""

    def __init__(self) -> None:
        self.read: list[tuple[int, int]] = []
        self.fails_at: tuple[int, int] | None = None

    @property
    def files(self) -> Files:
        return Files([partial(self._texts, number) for number in range(FILES)], "some corpus")

    def _texts(self, number: int) -> Iterator[str]:
        for document in range(DOCUMENTS):
            if (number, document) == self.fails_at:
                raise KeyboardInterrupt
            self.read.append((number, document))
            yield f"{number} {document}\n{document} {document}"


class SuicidalTokenizer(NumberTokenizer):
    """Kills its process at the first text that it sees, while a file is there, which it removes."""

    def __init__(self, trigger: Path) -> None:
        super().__init__()
        self.trigger = trigger

    def encode_arrays(self, texts: list[str]) -> list[np.ndarray]:
        if self.trigger.exists():
            self.trigger.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_arrays(texts)


class ThreadedTokenizer(NumberTokenizer):
    """Is called from several threads, which it remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    @property
    def releases_gil(self) -> bool:
        return True

    def encode_arrays(self, texts: list[str]) -> list[np.ndarray]:
        self.threads.add(threading.get_ident())
        time.sleep(0.002)  # the other thread's turn
        return super().encode_arrays(texts)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_writing, "PART_CHARACTERS", 40)


def pack(corpus: Corpus, out: Path, told: list[int] | None = None, **settings: object) -> Shards:
    tell = (told if told is not None else []).append
    return write_shards(
        corpus.files,
        settings.pop("tokenizer", NumberTokenizer()),  # type: ignore[arg-type]
        out,
        **{"validation_share": 0.2, "by_line": True, "shard_tokens": 50, "overwrite": False, "told": tell}
        | settings,  # type: ignore[arg-type]
    )


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    pack(Corpus(), tmp_path / "whole")
    return contents(tmp_path / "whole")


def interrupted(out: Path) -> Corpus:
    """A corpus whose packing was stopped in its last file."""
    corpus = Corpus()
    corpus.fails_at = (2, 7)
    with pytest.raises(KeyboardInterrupt):
        pack(corpus, out)
    corpus.fails_at = None
    corpus.read.clear()
    assert not out.exists()
    return corpus


def parts(out: Path) -> list[Path]:
    return sorted((out.with_name(f"{out.name}.partial") / "parts").glob("*.npz"))


def test_many_processes_give_the_bytes_of_one(tmp_path: Path, whole: dict[str, bytes]) -> None:
    told: list[int] = []
    pack(Corpus(), tmp_path / "parallel", told, workers=2)
    assert contents(tmp_path / "parallel") == whole
    assert len(told) > 10, "there are many parts"
    assert sum(told) == sum(len(text) for number in range(FILES) for text in Corpus().files.sources[number]())


def test_many_threads_give_the_bytes_of_one(tmp_path: Path, whole: dict[str, bytes]) -> None:
    tokenizer = ThreadedTokenizer()
    pack(Corpus(), tmp_path / "parallel", workers=3, tokenizer=tokenizer)
    assert contents(tmp_path / "parallel") == whole
    assert len(tokenizer.threads) > 1
    assert threading.get_ident() not in tokenizer.threads


def test_parts_do_not_show(tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_writing, "PART_CHARACTERS", 123)
    pack(Corpus(), tmp_path / "other")
    assert contents(tmp_path / "other") == whole


def test_goes_on_where_it_was_stopped(tmp_path: Path, whole: dict[str, bytes]) -> None:
    corpus = interrupted(tmp_path / "out")
    made = len(parts(tmp_path / "out"))
    told: list[int] = []
    pack(corpus, tmp_path / "out", told)
    assert contents(tmp_path / "out") == whole
    assert made > 5
    assert 0 < len(told) < made, "finished parts are not made again"
    assert {number for number, _ in corpus.read} == {2}, "files that are done are not read again"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "entry"])
def test_a_damaged_part_is_made_again(tmp_path: Path, whole: dict[str, bytes], harm: str) -> None:
    corpus = interrupted(tmp_path / "out")
    damaged = parts(tmp_path / "out")[2]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    if harm == "remove":
        damaged.unlink()
    elif harm == "entry":
        damaged.with_suffix(".json").write_text("{")
    else:
        damaged.write_bytes(content if harm == "flip" else content[:-1])
    pack(corpus, tmp_path / "out")
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"validation_share": 0.3}, "validation_share 0.2, now 0.3"),
        ({"by_line": False}, "by_line True, now False"),
        ({"tokenizer": NumberTokenizer(fingerprint="f" * 64)}, "tokenizer 'numbers', now"),
    ],
    ids=["share", "lines", "tokenizer"],
)
def test_parts_of_another_call_are_refused_or_replaced(
    tmp_path: Path, settings: dict[str, object], words: str
) -> None:
    corpus = interrupted(tmp_path / "out")
    with pytest.raises(UserError, match=words) as error:
        pack(corpus, tmp_path / "out", **settings)
    assert "give those again to continue, or start over with --overwrite" in str(error.value)
    pack(corpus, tmp_path / "out", **settings, overwrite=True)
    assert len(corpus.read) == FILES * DOCUMENTS, "nothing of the other call was taken"
    pack(Corpus(), tmp_path / "fresh", **settings)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_killed_between_the_new_name_and_clearing_away(tmp_path: Path, whole: dict[str, bytes]) -> None:
    out, partial_, kept = tmp_path / "out", tmp_path / "out.partial", tmp_path / "kept"
    clear = shard_writing._clear
    shard_writing._clear = lambda path: None
    try:
        pack(Corpus(), out)
    finally:
        shard_writing._clear = clear
    shutil.copytree(partial_, kept)
    corpus = Corpus()
    pack(corpus, out)
    assert corpus.read == []
    assert not partial_.exists()
    assert contents(out) == whole
    kept.rename(partial_)
    with pytest.raises(UserError, match="holds shards: replace them with --overwrite"):
        pack(corpus, out, validation_share=0.3)


def test_a_killed_worker_is_said_and_survived(tmp_path: Path, whole: dict[str, bytes]) -> None:
    tokenizer = SuicidalTokenizer(tmp_path / "trigger")
    tokenizer.trigger.touch()
    with pytest.raises(UserError, match="a worker process was killed"):
        pack(Corpus(), tmp_path / "out", tokenizer=tokenizer, workers=2)
    pack(Corpus(), tmp_path / "out", tokenizer=tokenizer, workers=2)
    assert contents(tmp_path / "out") == whole


def test_somebody_elses_directory_beside_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "precious.txt").write_text("x")
    with pytest.raises(UserError, match=r"out\.partial is in the way and none of ours"):
        pack(Corpus(), tmp_path / "out", overwrite=True)
    assert (tmp_path / "out.partial" / "precious.txt").read_text() == "x"


def test_a_corpus_of_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the corpus is empty"):
        write_shards(Files([lambda: []], "empty"), NumberTokenizer(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
