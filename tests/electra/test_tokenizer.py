"""ELECTRA's tokenizer against published ids and against Transformers."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError

HOSTILE = [
    "",
    "   ",
    "Hello, world! It's a test; isn't it? (Yes.) 3.5 - 4 % don't 's",
    "a\nb\tc\r\nd",
    "unaffable [MASK] [SEP] x[MASK]y [PAD][UNK]",
    "combining e\u0301 Ü ö ß İ ı Σς",
    "control \x00\x01\x7f\u200b\ufeff\u00a0 \ufffd",
    "中文 ab中c 日本語のテスト",
    "emoji 😀👍🏽",
    "a" * 150 + " " + "b" * 99,
    "##ing ## #",
]


@pytest.fixture(scope="module")
def uncased(shared_data: Path, tmp_path_factory: Any) -> Path:
    directory: Path = tmp_path_factory.mktemp("uncased")
    shutil.copyfile(shared_data / "vocab" / "bert-uncased" / "vocab.txt", directory / "vocab.txt")
    return directory


@pytest.fixture(scope="module")
def tokenizer(uncased: Path) -> ElectraTokenizer:
    return ElectraTokenizer.from_pretrained(uncased)


@pytest.fixture(scope="module")
def trained(documents: list[str]) -> ElectraTokenizer:
    return ElectraTokenizer.train(documents, 600)


def test_golden_ids(tokenizer: ElectraTokenizer, shared_data: Path) -> None:
    rows = json.loads((shared_data / "golden" / "bert_uncased_tokenizer.json").read_text())["rows"]
    assert tokenizer.encode_batch(row["text"] for row in rows) == [row["ids"] for row in rows]
    assert [tokenizer.tokenize(row["text"]) for row in rows] == [row["tokens"] for row in rows]


def test_special_tokens(tokenizer: ElectraTokenizer) -> None:
    assert tokenizer.vocab_size == 30_522
    ids = ("pad_token_id", "unk_token_id", "cls_token_id", "sep_token_id", "mask_token_id")
    assert [getattr(tokenizer, name) for name in ids] == [0, 100, 101, 102, 103]
    assert tokenizer.special_ids == {0, 100, 101, 102, 103}
    assert (tokenizer.cls_token, tokenizer.sep_token, tokenizer.mask_token) == ("[CLS]", "[SEP]", "[MASK]")


@pytest.mark.parametrize("lowercase", [True, False])
def test_as_transformers(uncased: Path, tmp_path: Path, lowercase: bool) -> None:
    import transformers

    shutil.copyfile(uncased / "vocab.txt", tmp_path / "vocab.txt")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lowercase}))
    theirs = transformers.ElectraTokenizer.from_pretrained(tmp_path)
    ours = ElectraTokenizer.from_pretrained(tmp_path)
    for text in HOSTILE:
        ids = theirs.encode(text)
        assert ours.encode(text) == ids, text
        for skip in (False, True):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)


def test_decode_of_any_ids_as_transformers(tokenizer: ElectraTokenizer, uncased: Path) -> None:
    import transformers

    theirs = transformers.ElectraTokenizer.from_pretrained(uncased)
    random_ids = random.Random(0)
    for _ in range(200):
        row = random_ids.choices([*range(999, 3000), 0, 100, 101, 102, 103, 30_522, 30_600], k=12)
        for skip in (False, True):
            assert tokenizer.decode(row, skip_special_tokens=skip) == theirs.decode(
                row, skip_special_tokens=skip
            )


def test_pairs_and_truncation_as_transformers(tokenizer: ElectraTokenizer, uncased: Path) -> None:
    import transformers

    theirs = transformers.ElectraTokenizer.from_pretrained(uncased)
    numbers = random.Random(0)
    for _ in range(200):
        # Not 0: Transformers takes an empty second text for none.
        first, second = (" ".join(["word"] * numbers.randrange(1, 9)) for _ in range(2))
        choice = numbers.choice([True, "longest_first", "only_first"])
        # Transformers 5.23 goes wrong where only_first cannot hold.
        length = numbers.randrange(12, 20) if choice == "only_first" else numbers.randrange(3, 20)
        expected = theirs(first, second, truncation=choice, max_length=length, padding="max_length")
        ours = tokenizer(first, second, truncation=choice, max_length=length, padding="max_length")
        assert dict(ours) == dict(expected), (first, second, choice, length)
        alone = theirs(first, truncation=True, max_length=length)
        assert dict(tokenizer(first, truncation=True, max_length=length)) == dict(alone)
    pairs = tokenizer.encode_pairs(["a", "b c"], ["d", "e"])
    assert pairs == [theirs.encode("a", "d"), theirs.encode("b c", "e")]
    assert tokenizer.encode("a", "") == [101, 1037, 102, 102]


def same_in_transformers(tokenizer: ElectraTokenizer, directory: Path) -> None:
    import transformers

    tokenizer.save_pretrained(directory)
    (directory / "config.json").write_text('{"model_type": "electra"}')
    for class_ in (transformers.AutoTokenizer, transformers.ElectraTokenizer):
        theirs = class_.from_pretrained(directory)
        assert len(theirs) == tokenizer.vocab_size
        assert (theirs.cls_token_id, theirs.mask_token_id) == (
            tokenizer.cls_token_id,
            tokenizer.mask_token_id,
        )
        for text in HOSTILE:
            ids = tokenizer.encode(text)
            assert theirs.encode(text) == ids, text
            assert theirs.decode(ids) == tokenizer.decode(ids)
        assert theirs.encode("a b", "c") == tokenizer.encode("a b", "c")
        theirs.save_pretrained(directory / "theirs")
        assert ElectraTokenizer.from_pretrained(directory / "theirs").fingerprint == tokenizer.fingerprint
    assert ElectraTokenizer.from_pretrained(directory).fingerprint == tokenizer.fingerprint
    (directory / "tokenizer.json").unlink()
    assert ElectraTokenizer.from_pretrained(directory).fingerprint == tokenizer.fingerprint


def test_saved_for_transformers(tokenizer: ElectraTokenizer, tmp_path: Path) -> None:
    same_in_transformers(tokenizer, tmp_path)


@pytest.mark.parametrize("lowercase", [True, False])
def test_trained_saved_for_transformers(documents: list[str], tmp_path: Path, lowercase: bool) -> None:
    trained = ElectraTokenizer.train(documents, 500, lowercase=lowercase)
    assert (trained.encode("Hello") == trained.encode("hello")) == lowercase
    same_in_transformers(trained, tmp_path)


def test_the_config_decides_about_case(tokenizer: ElectraTokenizer, tmp_path: Path) -> None:
    import transformers

    tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"do_lower_case": False}))
    theirs = transformers.ElectraTokenizer.from_pretrained(tmp_path)
    ours = ElectraTokenizer.from_pretrained(tmp_path)
    assert ours.encode("Hello Ü") == theirs.encode("Hello Ü") != tokenizer.encode("Hello Ü")


def test_tokens_that_a_user_added(uncased: Path, tmp_path: Path) -> None:
    import transformers

    theirs = transformers.ElectraTokenizer.from_pretrained(uncased)
    theirs.add_tokens(["electra-speak"])
    theirs.save_pretrained(tmp_path / "json")
    old = tmp_path / "old"
    old.mkdir()
    shutil.copyfile(uncased / "vocab.txt", old / "vocab.txt")
    (old / "added_tokens.json").write_text('{"electra-speak": 30522}')
    for directory in (tmp_path / "json", old):
        ours = ElectraTokenizer.from_pretrained(directory)
        assert ours.vocab_size == 30_523
        assert ours.encode("so electra-speak is") == theirs.encode("so electra-speak is")


@pytest.mark.parametrize("place", [".", "generator", "discriminator"])
def test_tokenizer_of_a_pair(trained: ElectraTokenizer, tmp_path: Path, place: str) -> None:
    trained.save_pretrained(tmp_path / place)
    assert ElectraTokenizer.from_pretrained(tmp_path).fingerprint == trained.fingerprint


def test_trained_layout(trained: ElectraTokenizer) -> None:
    assert trained.vocab_size == 600
    assert trained.convert_ids_to_tokens(list(range(5))) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert trained.encode("the")[0] == 2
    assert len(trained.encode("restaurant")) == 3, "a frequent word is one piece"
    # Every letter can begin and continue a word.
    assert trained.unk_token_id not in trained.encode("xqzjv qxjzv")


def test_training_does_not_depend_on_the_process() -> None:
    """Hash tables differ from process to process, and with them what the library would do by itself."""
    code = (
        "from unmask.electra.tokenizer import ElectraTokenizer\n"
        "words = [f'{a}{b}{c}' for a in 'abcdef' for b in 'ghij' for c in ('kl', 'mno', 'pq')]\n"
        "print(ElectraTokenizer.train([' '.join(words)] * 3, 160).fingerprint)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True) for _ in range(4)]
    assert len({run.stdout for run in runs}) == 1
    assert all(run.stderr == b"" for run in runs)


def test_pickle(trained: ElectraTokenizer) -> None:
    again = pickle.loads(pickle.dumps(trained))  # noqa: S301
    assert again.fingerprint == trained.fingerprint
    assert again.encode("some text") == trained.encode("some text")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "neither tokenizer.json nor vocab.txt"),
        ({"vocab.txt": "[PAD]\n[UNK]\na\n"}, r"lacks \[CLS\], \[SEP\], \[MASK\]"),
        ({"vocab.txt": "\udcff"}, "cannot be read"),
        ({"tokenizer.json": "{}"}, "cannot be read"),
        ({"tokenizer.json": '{"model": {"type": "Unigram"}}'}, "ELECTRA needs WordPiece"),
    ],
)
def test_unreadable_files(files: dict[str, str], message: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=message):
        ElectraTokenizer.from_pretrained(tmp_path)
