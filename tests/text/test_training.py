"""Training: the same vocabulary for the same text, and a clear word when the size does not suit it."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import sentencepiece_model_pb2

from unmask.errors import UserError
from unmask.text.training import sample, train_unigram, train_wordpiece

ROOT = Path(__file__).resolve().parents[2]


def test_unigram_is_the_same_in_any_order(documents: list[str]) -> None:
    shuffled = random.Random(1).sample(documents, len(documents))
    assert train_unigram(documents, 500) == train_unigram(iter(shuffled), 500)
    assert train_unigram(documents[1:], 500) != train_unigram(documents, 500)


def test_unigram_does_not_depend_on_cores_and_prints_nothing() -> None:
    code = (
        "import sys, os, hashlib\n"
        "if sys.argv[1] == 'one' and hasattr(os, 'sched_setaffinity'):\n"
        "    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from unmask.text.training import train_unigram\n"
        "text = open(sys.argv[2]).read()\n"
        "print(hashlib.sha256(train_unigram([text], 450)).hexdigest())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code, cores, str(ROOT / "LICENSE")], capture_output=True, check=True
        )
        for cores in ("one", "all")
    ]
    assert runs[0].stdout == runs[1].stdout
    assert all(run.stderr == b"" for run in runs)


def test_unigram_layout(documents: list[str]) -> None:
    model: Any = sentencepiece_model_pb2.ModelProto.FromString(train_unigram(documents, 500))
    pieces = [piece.piece for piece in model.pieces]
    assert len(pieces) == 500
    assert pieces[:5] == ["<pad>", "</s>", "<unk>", "\n", "\t"]
    assert {chr(code) for code in range(33, 127)} <= set(pieces)
    assert sum(piece.type == 6 for piece in model.pieces) == 256
    assert (model.trainer_spec.pad_id, model.trainer_spec.eos_id, model.trainer_spec.bos_id) == (0, 1, -1)


def test_wordpiece_is_the_same_in_any_order(documents: list[str]) -> None:
    shuffled = random.Random(1).sample(documents, len(documents))
    assert train_wordpiece(documents, 500) == train_wordpiece(iter(shuffled), 500)


def test_wordpiece_alphabet() -> None:
    vocab = train_wordpiece(["Affe Bär, Ça\u2014va? 中文 Zoo"] * 150 + ["\u03a9"], 177, lowercase=False)
    assert sorted(vocab.values()) == list(range(177))
    assert [vocab[name] for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")] == list(range(5))
    for character in map(chr, range(33, 127)):
        assert character in vocab
        assert ("##" + character in vocab) == character.isalnum()
    assert {"Ç", "##Ç", "##ä", "—", "中"} <= vocab.keys()
    assert not {"##—", "##中"} & vocab.keys(), "these are always words of their own"
    assert "\u03a9" not in vocab, "one in 3,000 characters is a rare one"


def test_wordpiece_folds_case() -> None:
    vocab = train_wordpiece(["Affe Bär"] * 9, 114)
    assert "affe" in vocab
    assert not {"A", "ä"} & vocab.keys()


@pytest.mark.parametrize("train", [train_unigram, train_wordpiece])
def test_sizes_that_do_not_suit(train: Callable[..., Any], documents: list[str]) -> None:
    with pytest.raises(UserError, match="too large") as too_large:
        train(documents[:3], 50_000)
    largest = int(re.findall(r"\d+", str(too_large.value))[-1])
    train(documents[:3], largest)
    with pytest.raises(UserError, match=f"vocab_size={largest + 1} is too large .* works is {largest}$"):
        train(documents[:3], largest + 1)
    with pytest.raises(UserError, match="too small") as too_small:
        train(documents[:3], 10)
    smallest = int(re.findall(r"\d+", str(too_small.value))[-1])
    train(documents[:3], smallest)


@pytest.mark.parametrize("train", [train_unigram, train_wordpiece])
def test_unusable_texts(train: Callable[..., Any]) -> None:
    for nothing in ([], ["", "  \n"]):
        with pytest.raises(UserError, match="no text"):
            train(nothing, 500)
    with pytest.raises(UserError, match="text 1 holds a lone surrogate"):
        train(["fine", "bro\ud800ken"], 500)
    with pytest.raises(TypeError, match="text 0 must be a str, not bytes"):
        train([b"bytes"], 500)


def test_unigram_takes_any_character() -> None:
    odd = ["null \0 and block ▁ and ▅ and \ufffd", "tab\tand\r\nline", "plain words here again"] * 20
    assert train_unigram(odd, 360)


def test_sample_is_bounded_and_by_content() -> None:
    numbers = random.Random(0)
    texts = [f"document {i}: " + "ä" * numbers.randrange(100) for i in range(1000)]
    kept = sample(texts, 10_000)
    size = sum(len(text.encode()) for text in kept)
    assert 9_500 < size <= 10_000
    assert set(kept) <= set(texts)
    assert sample(reversed(texts), 10_000) == kept
    # A smaller sample is a part of a larger one.
    assert set(sample(texts, 5_000)) < set(kept)


def test_sample_cuts_long_documents_between_words() -> None:
    text = "".join(f"line {i} of a long document\n" for i in range(2000)) + "x" * 10_000
    passages = sample([text], 10**9)
    assert max(map(len, passages)) <= 4000
    assert sorted("".join(passages)) == sorted(text)
    for passage in passages:
        assert passage[0] == "\n" or passage.startswith("line 0 ") or set(passage) == {"x"}
