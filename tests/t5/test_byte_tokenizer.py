"""ByT5's tokenizer against Transformers' and against the bytes themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from unmask import ByT5Tokenizer, T5Tokenizer
from unmask.errors import UserError
from unmask.t5.byte_tokenizer import load_tokenizer
from unmask.t5.filling import fill_gaps

TEXTS = [
    "",
    "Hello, world!",
    "naïve café – 北京 👩‍👩‍👧 \u0000 \x7f",
    "a  b\t\nc  ",
    "{x} <extra_id_0> y<extra_id_124>",
    "<extra_id_125> <extra_id_01> <extra_id_>",
    "<extra_id_7><extra_id_7>",
]
words = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def theirs() -> transformers.ByT5Tokenizer:
    return transformers.ByT5Tokenizer()


@pytest.mark.parametrize("text", TEXTS)
def test_ids_and_text_are_the_reference_s(text: str, theirs: transformers.ByT5Tokenizer) -> None:
    ours = ByT5Tokenizer()
    ids = ours.encode(text)
    assert ids == theirs(text).input_ids
    assert ours.encode(text, "é") == theirs(text, "é").input_ids
    for skip in (True, False):
        assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)
    assert ours.tokenize(text) == theirs.tokenize(text)
    assert ours.convert_tokens_to_ids(ours.tokenize(text)) == ids[:-1]


@given(words)
def test_every_text_comes_back(text: str) -> None:
    ours = ByT5Tokenizer()
    ids = ours.encode(text, add_special_tokens=False)
    assert ours.decode(ids) == text
    if "<extra_id_" not in text:
        assert ids == [byte + 3 for byte in text.encode()]


@given(st.lists(st.integers(0, 500), max_size=30))
def test_any_ids_make_some_text(ids: list[int]) -> None:
    ours = ByT5Tokenizer()
    kept = [token - 3 for token in ids if 3 <= token < 259]
    assert ours.decode(ids, skip_special_tokens=True) == bytes(kept).decode(errors="ignore")


def test_special_tokens_by_name() -> None:
    assert ByT5Tokenizer().decode([0, 100, 1, 259, 2]) == "<pad>a</s><extra_id_0><unk>"
    assert len(ByT5Tokenizer()) == 384


def test_an_end_in_a_text_is_text() -> None:
    assert ByT5Tokenizer().encode("</s>") == [*(byte + 3 for byte in b"</s>"), 1]


def test_sentinels_of_pre_training_stand_in_no_text() -> None:
    sentinels = ByT5Tokenizer().sentinel_ids
    assert sentinels[:3] == [258, 257, 256]
    highest = max(byte + 3 for byte in "\U0010ffff\U000e0000\uffff".encode())
    assert min(sentinels) == highest + 1


def test_files_go_both_ways(tmp_path: Path, theirs: transformers.ByT5Tokenizer) -> None:
    ByT5Tokenizer().save_pretrained(tmp_path / "ours")
    back = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert type(back) is transformers.ByT5Tokenizer
    assert back("é<extra_id_9>").input_ids == theirs("é<extra_id_9>").input_ids
    theirs.save_pretrained(tmp_path / "theirs")
    ours = ByT5Tokenizer.from_pretrained(tmp_path / "theirs")
    assert ours.fingerprint == ByT5Tokenizer().fingerprint
    assert ByT5Tokenizer.from_pretrained(tmp_path / "ours").fingerprint == ours.fingerprint
    ByT5Tokenizer(3).save_pretrained(tmp_path / "few")
    assert ByT5Tokenizer.from_pretrained(tmp_path / "few").vocab_size == 262
    assert ByT5Tokenizer(3).fingerprint != ours.fingerprint


def test_a_directory_says_which_tokenizer(tmp_path: Path, shared_data: Path) -> None:
    ByT5Tokenizer().save_pretrained(tmp_path)
    assert type(load_tokenizer(tmp_path)) is ByT5Tokenizer
    assert type(load_tokenizer(shared_data / "vocab" / "t5")) is T5Tokenizer
    with pytest.raises(UserError, match="tokenizer"):
        ByT5Tokenizer.from_pretrained(shared_data / "vocab" / "t5")


class Echo:
    """Stands for a model that answers with its own input."""

    device = torch.device("cpu")

    def generate(self, ids: torch.Tensor, max_new_tokens: int) -> torch.Tensor:
        return ids


def test_gaps_are_marked_as_in_pre_training() -> None:
    fills = fill_gaps(Echo(), ByT5Tokenizer(), "a ___b___ c")  # type: ignore[arg-type]
    assert fills == ["b", "c"]
    seen: list[list[int]] = []

    class Watched(Echo):
        def generate(self, ids: torch.Tensor, max_new_tokens: int) -> torch.Tensor:
            seen.extend(ids.tolist())
            return ids

    fill_gaps(Watched(), ByT5Tokenizer(), "a ___b")  # type: ignore[arg-type]
    assert seen == [[ord("a") + 3, ord(" ") + 3, 258, ord("b") + 3, 1]]


def test_a_folder_without_files_is_enough(tmp_path: Path) -> None:
    assert ByT5Tokenizer.from_pretrained(tmp_path).vocab_size == 384


def test_another_model_s_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    with pytest.raises(UserError, match="not ByT5's"):
        ByT5Tokenizer.from_pretrained(tmp_path)
