"""Fertility, unknown rates and losses, on texts whose numbers can be counted by hand."""

from __future__ import annotations

import pytest

from unmask.electra.tokenizer import ElectraTokenizer
from unmask.t5.byte_tokenizer import ByT5Tokenizer
from unmask.text import wordpiece
from unmask.text.measurement import Measurement

PIECES = [*wordpiece.SPECIAL_TOKENS.values(), "cat", "##s", "dog", ","]


@pytest.fixture
def tokenizer() -> ElectraTokenizer:
    return ElectraTokenizer(wordpiece.build({piece: i for i, piece in enumerate(PIECES)}))


def test_counted_by_hand(tokenizer: ElectraTokenizer) -> None:
    found = Measurement.of(tokenizer, ["cats, dogs", "Cat owl owl", "cat dog"])
    # cat ##s , dog ##s | cat [UNK] [UNK] | cat dog
    assert (found.texts, found.characters, found.words, found.tokens) == (3, 28, 7, 10)
    assert (found.vocab_size, found.special, found.unknown) == (9, 5, 2)
    assert found.frequencies.tolist() == [0, 2, 0, 0, 0, 3, 2, 2, 1]
    assert found.used == 5
    assert found.fertility == 10 / 7
    assert found.characters_per_token == 2.8
    assert found.unknown_rate == 0.2
    assert found.unknown_words == [("owl", 2)]
    assert (found.changed, found.lost) == (1, 1)
    assert (found.losses[0].before, found.losses[0].after) == ("catowlowl", "cat[unk][unk]")


def test_folding_and_spacing_are_no_loss(tokenizer: ElectraTokenizer) -> None:
    found = Measurement.of(tokenizer, ["Cats ,  DOG", "cat"])
    assert (found.changed, found.lost) == (1, 0)
    assert found.losses == []


def test_bytes_lose_nothing() -> None:
    texts = ["tab\tand\nline  é 中\0", "\N{GRINNING FACE}"] * 300
    found = Measurement.of(ByT5Tokenizer(), texts)
    assert (found.texts, found.unknown, found.changed, found.lost) == (600, 0, 0, 0)
    assert found.tokens == sum(len(text.encode()) for text in texts)
