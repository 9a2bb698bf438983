"""Segmenters: found by name, run before WordPiece, their words never crossed."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.text.segmentation import Segmentation, Word, find_segmenter, register_segmenter

TEXT = "東京都に行く、がぎ Ébc def. "


def pairs(text: str) -> list[str]:
    return re.findall(r"\S\S?", text)


@pytest.fixture(autouse=True)
def registered() -> None:
    register_segmenter("pairs", pairs)


@pytest.fixture
def tokenizer() -> ElectraTokenizer:
    return ElectraTokenizer.train([TEXT] * 50, 133, segmenter="pairs", strip_accents=False)


def test_words_and_where_they_start() -> None:
    words = Segmentation("pairs", ["[MASK]"]).words(" abc [MASK]d")
    assert words == [Word("ab", 1), Word("c", 3), Word("[MASK]", 5), Word("d", 11)]


def test_pieces_do_not_cross_words(tokenizer: ElectraTokenizer) -> None:
    assert tokenizer.tokenize("東京都に行く") == ["東京", "都に", "行く"]
    plain = ElectraTokenizer.train([TEXT] * 50, 127)
    assert plain.tokenize("東京都に")[:2] == ["東", "京"], "without a segmenter each Kanji is a word"


def test_special_tokens_stay_whole_and_offsets_are_those_of_the_text(tokenizer: ElectraTokenizer) -> None:
    text = "都に[MASK] 行く Ébc"
    ids, offsets = tokenizer.encode_with_offsets([text])[0]
    assert ids == tokenizer.encode(text, add_special_tokens=False)
    tokens = tokenizer.convert_ids_to_tokens(ids)
    assert tokens[:3] == ["都に", "[MASK]", "行く"]
    spans = [text[start:end] for start, end in offsets]
    assert spans == ["都に", "[MASK]", "行く", "Éb", "c"]


def test_kept_by_name(tokenizer: ElectraTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = ElectraTokenizer.from_pretrained(tmp_path)
    for other in (loaded, pickle.loads(pickle.dumps(tokenizer))):  # noqa: S301
        assert other.tokenize(TEXT) == tokenizer.tokenize(TEXT)
        assert other.fingerprint == tokenizer.fingerprint
    without = ElectraTokenizer(tokenizer._backend)
    assert without.fingerprint != tokenizer.fingerprint


def test_found_among_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cutters.py").write_text("def letters(text):\n    return list(text)\n")
    info = tmp_path / "cutters-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cutters\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[unmask.segmenters]\nletters = cutters:letters\ngone = cutters:gone\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert list(find_segmenter("letters")("ab")) == ["a", "b"]
    with pytest.raises(UserError, match="'gone' cannot be loaded"):
        find_segmenter("gone")
    with pytest.raises(UserError, match=r"no segmenter 'os:system'.*known: gone, letters, pairs"):
        find_segmenter("os:system")


def test_words_that_are_not_in_the_text() -> None:
    register_segmenter("upper", lambda text: [text.upper()])
    with pytest.raises(UserError, match="'upper' gave 'ABC', which is not in the text after character 0"):
        Segmentation("upper").words("abc")
