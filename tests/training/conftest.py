"""A corpus and a vocabulary that an ELECTRA of a few thousand parameters trains on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from several import TOKENIZERS

from unmask.data.shard_writing import write_shards
from unmask.data.shards import Shards
from unmask.electra.tokenizer import ElectraTokenizer


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """60 documents of four lines, of 40 words."""
    draw = random.Random(0)
    words = [first + second for first in "abcdefghij" for second in ("bak", "del", "fim", "gon")]
    return ["\n".join(" ".join(draw.choices(words, k=8)) for _ in range(4)) for _ in range(60)]


@pytest.fixture(scope="session")
def tokenizer(texts: list[str]) -> ElectraTokenizer:
    return ElectraTokenizer.train(texts, 140)


@pytest.fixture(scope="session")
def shards(texts: list[str], tokenizer: ElectraTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    directory = tmp_path_factory.mktemp("shards") / "data"
    write_shards(texts, tokenizer, directory, by_line=True, validation_share=0.1)
    return Shards.open(directory, tokenizer)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 documents of four lines, of 40 words, for both families."""
    draw = random.Random(0)
    words = [first + second for first in "abcdefghij" for second in ("bak", "del", "fim", "gon")]
    texts = ["\n".join(" ".join(draw.choices(words, k=8)) for _ in range(4)) for _ in range(60)]
    directory = tmp_path_factory.mktemp("data")
    for family, kind in TOKENIZERS.items():
        tokenizer = kind.train(texts, 400 if family == "t5" else 130)
        tokenizer.save_pretrained(directory / family / "tokenizer")
        shards = directory / family / "shards"
        write_shards(texts, tokenizer, shards, by_line=family == "electra", validation_share=0.1)
    return directory


@pytest.fixture(autouse=True)
def _no_pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no page, which takes longer than such small ones, but where a test asks for `pages`."""
    if "pages" not in request.fixturenames:
        monkeypatch.setattr("unmask.training.pretraining.write_run_page", lambda *arguments: None)


@pytest.fixture
def pages() -> None:
    """Runs draw their page."""
