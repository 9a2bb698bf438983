"""What all tokenizers share: padding, truncation, tensors, misuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.t5.tokenizer import T5Tokenizer
from unmask.text import wordpiece
from unmask.text.tokenizer import Tokenizer

PIECES = [*wordpiece.SPECIAL_TOKENS.values(), "a", "b", "c", "d"]


@pytest.fixture(scope="module")
def letters() -> ElectraTokenizer:
    """[PAD] 0 … [MASK] 4, a 5, b 6, c 7, d 8."""
    return ElectraTokenizer(wordpiece.build({piece: i for i, piece in enumerate(PIECES)}))


@pytest.fixture(scope="module")
def unigram() -> T5Tokenizer:
    return T5Tokenizer.train([(Path(__file__).parents[2] / "LICENSE").read_text()], 400)


@pytest.fixture(params=["letters", "unigram"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    chosen: Tokenizer = request.getfixturevalue(request.param)
    return chosen


def test_encode(letters: ElectraTokenizer) -> None:
    assert letters.encode("a b") == [2, 5, 6, 3]
    assert letters.encode("a b", add_special_tokens=False) == [5, 6]
    assert letters.encode("a", "b c") == [2, 5, 3, 6, 7, 3]
    assert letters.encode("a b c", truncation=True, max_length=4) == [2, 5, 6, 3]
    ids = letters.encode("a b", return_tensors="pt")
    assert ids.tolist() == [[2, 5, 6, 3]]
    assert ids.dtype == torch.int64
    assert letters.encode("", add_special_tokens=False, return_tensors="pt").shape == (1, 0)


def test_call(letters: ElectraTokenizer) -> None:
    assert letters("a") == {"input_ids": [2, 5, 3], "token_type_ids": [0, 0, 0], "attention_mask": [1, 1, 1]}
    batch = letters(["a", "b c"], ["d", "d"], padding=True, return_tensors="pt")
    assert batch.input_ids.tolist() == [[2, 5, 3, 8, 3, 0], [2, 6, 7, 3, 8, 3]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]
    assert batch.token_type_ids.tolist() == [[0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1]]
    assert batch.to("cpu")["input_ids"].dtype == torch.int64
    assert letters(["a", "b c"])["input_ids"] == [[2, 5, 3], [2, 6, 7, 3]]
    assert letters("a b", "c", add_special_tokens=False).token_type_ids == [0, 0, 1]
    padded = letters(["a", "b c"], padding="max_length", max_length=5)
    assert [len(row) for row in padded.input_ids] == [5, 5]
    assert letters([], padding=True) == {"input_ids": [], "attention_mask": []}
    with pytest.raises(AttributeError, match="labels"):
        _ = batch.labels


@pytest.mark.parametrize(
    ("strategy", "length", "expected"),
    [
        (True, 9, [2, 5, 5, 3, 6, 6, 6, 6, 3]),
        ("longest_first", 6, [2, 5, 3, 6, 6, 3]),
        ("longest_first", 4, [2, 3, 6, 3]),
        ("longest_first", 3, [2, 3, 3]),
        ("only_first", 8, [2, 5, 3, 6, 6, 6, 6, 3]),
        ("only_second", 6, [2, 5, 5, 3, 6, 3]),
    ],
)
def test_truncation_of_pairs(
    letters: ElectraTokenizer, strategy: Any, length: int, expected: list[int]
) -> None:
    assert letters.encode("a a", "b b b b", truncation=strategy, max_length=length) == expected


def test_t5_keeps_its_end(unigram: T5Tokenizer) -> None:
    ids = unigram.encode("some words", truncation=True, max_length=2)
    assert len(ids) == 2
    assert ids[-1] == unigram.eos_token_id
    assert unigram("some").keys() == {"input_ids", "attention_mask"}


def test_batches_equal_single_texts(tokenizer: Tokenizer) -> None:
    texts = ["a b", "", "some words", "d c"] * 20
    rows = tokenizer.encode_batch(texts)
    assert rows == [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch(iter(texts), add_special_tokens=False) == [
        tokenizer.encode(text, add_special_tokens=False) for text in texts
    ]
    pairs = tokenizer.encode_pairs(texts, texts[::-1])
    assert pairs == [tokenizer.encode(a, b) for a, b in zip(texts, texts[::-1], strict=True)]
    assert tokenizer.batch_decode(rows) == [tokenizer.decode(row) for row in rows]
    assert tokenizer.encode_batch([]) == []
    arrays = tokenizer.encode_arrays(texts)
    assert [array.tolist() for array in arrays] == tokenizer.encode_batch(texts, add_special_tokens=False)
    assert {array.dtype for array in arrays} == {np.dtype(np.int32)}
    assert tokenizer.encode_arrays([]) == []
    assert tokenizer.batch_decode([]) == []


def test_decode_takes_what_models_give(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("some words a b")
    text = tokenizer.decode(ids)
    for same in (tuple(ids), torch.tensor(ids), np.array(ids), iter(ids), list(torch.tensor(ids))):
        assert tokenizer.decode(same) == text
    assert tokenizer.batch_decode(torch.tensor([ids, ids])) == [text, text]
    assert tokenizer.decode(ids[0]) == tokenizer.decode([ids[0]])
    assert tokenizer.decode([*ids, tokenizer.vocab_size, tokenizer.vocab_size + 500]) == text


def test_tokens(letters: ElectraTokenizer) -> None:
    assert letters.convert_ids_to_tokens(5) == "a"
    assert letters.convert_ids_to_tokens(torch.tensor([2, 5, 99])) == ["[CLS]", "a", None]
    assert letters.convert_tokens_to_ids(["a", "[MASK]", "zebra"]) == [5, 4, 1]
    assert letters.convert_tokens_to_ids("b") == 6
    assert letters.tokenize("a x") == ["a", "[UNK]"]
    assert (letters.pad_token, letters.unk_token, letters.eos_token) == ("[PAD]", "[UNK]", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"truncation": True}, "truncation=True needs max_length"),
        ({"padding": "max_length"}, "padding='max_length' needs max_length"),
        ({"padding": "short"}, "padding='short' is unknown: use one of False, True, 'longest', 'max_length'"),
        ({"padding": 1}, "padding=1 is unknown"),
        ({"truncation": "left", "max_length": 3}, "truncation='left' is unknown"),
        ({"return_tensors": "tf"}, "return_tensors='tf' is unknown"),
        ({"truncation": True, "max_length": 0}, "must at least hold the special tokens"),
        ({"return_tensors": "pt"}, "give padding=True"),
        ({"text_pair": ["c"]}, "2 first texts but 1 second texts"),
        (
            {"text_pair": ["c", "c"], "truncation": "only_second", "max_length": 3},
            "the first text alone has",
        ),
    ],
)
def test_misuse(tokenizer: Tokenizer, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tokenizer(["a", "b b b"], **arguments)


def test_what_is_no_text(tokenizer: Tokenizer) -> None:
    for wrong, name in ((3, "int"), ([3], "int"), ([None], "NoneType"), (b"a", "int"), ([["a"]], "list")):
        with pytest.raises(TypeError, match=f"must be a str.*not {name}"):
            tokenizer(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not one str"):
        tokenizer.encode_batch("a")
    with pytest.raises(UserError, match=r"text 1 holds the lone surrogate U\+D83D at character 2"):
        tokenizer.encode_batch(["fine", "ab\ud83d"])
    with pytest.raises(UserError, match="surrogate"):
        tokenizer.encode_arrays(["fine", "ab\ud83d"])


def test_what_are_no_ids(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match=r"-100 is no token id .*replace it"):
        tokenizer.decode([5, -100])
    with pytest.raises(UserError, match="use batch_decode"):
        tokenizer.decode([[5], [5]])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="must be an int, not float"):
        tokenizer.decode([1.5])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="must be an int, not str"):
        tokenizer.decode("text")  # type: ignore[arg-type]


def test_is_true_and_has_a_length(tokenizer: Tokenizer) -> None:
    assert tokenizer
    assert len(tokenizer) == tokenizer.vocab_size
    assert tokenizer.fingerprint[:12] in repr(tokenizer)
    assert len(tokenizer.fingerprint) == 64


def test_no_directory(tmp_path: Any) -> None:
    for class_ in (T5Tokenizer, ElectraTokenizer):
        with pytest.raises(UserError, match="neither"):
            class_.from_pretrained(tmp_path)
