"""T5's tokenizer against SentencePiece, Google's way of adding sentinels, and Transformers."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

from unmask.errors import UserError
from unmask.t5.tokenizer import T5Tokenizer

HOSTILE = [
    "",
    " ",
    "   ",
    " leading and trailing ",
    "a\nb\n\n\nc\td\t\te\r\nf",
    "runs    of      spaces",
    "{curly} [square] <angle> \\ ` ~ ^ |",
    "def f(x):\n        if x:\n                return {x: [1, 2]}\n",
    "emoji 😀👍🏽 family 👨‍👩‍👧 flag 🇩🇪 done",
    "中文 分词 测试 日本語のテスト 한국어",
    "combining e\u0301 a\u0308 \u0301x n\u0303o",
    "control \x00\x01\x07\x1b\x7f\x85 here",
    "\u200bzero\u200dwidth\ufeff\u00a0nbsp\u3000wide\u2028line",
    "ﬁne ligatures ① ½ Ａ ™ ㍿",
    "العربية עברית हिन्दी ไทย",
    "\ue000private \ufffd\uffff",
    "a" * 3000,
    "<pad <extra_id_> <extra_id_x> <extra_id_1000> <0x0A> <s>",
    "https://example.org/a_b?c=d&e=f#g",
]
AT_WORDS = [
    "<extra_id_0>. Hello",
    "<extra_id_0>",
    " <extra_id_0> <extra_id_1> ",
    "Thank you <extra_id_0> me to your party <extra_id_1> week.",
    "peanut butter and <extra_id_0>ly sandwiches",
]
SENTINELS = [
    *AT_WORDS,
    "<extra_id_0><extra_id_1>",
    "(<extra_id_99>), <extra_id_5>!",
    "jel<extra_id_0> sandwiches",
]

texts = st.text(
    st.one_of(
        st.sampled_from("ab Z.,!{}<>\n\t▁  é1"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=60,
).filter(lambda text: "<extra_id_" not in text)  # Hypothesis likes to try the constants of this file


@pytest.fixture(scope="module")
def vocabulary(shared_data: Path) -> Path:
    return shared_data / "vocab" / "t5"


@pytest.fixture(scope="module", params=["spiece.model", "tokenizer.json", "both"])
def published(request: pytest.FixtureRequest, vocabulary: Path, tmp_path_factory: Any) -> T5Tokenizer:
    directory = tmp_path_factory.mktemp("published")
    for file in vocabulary.iterdir():
        if request.param in (file.name, "both"):
            shutil.copyfile(file, directory / file.name)
    return T5Tokenizer.from_pretrained(directory)


@pytest.fixture(scope="module")
def reference(vocabulary: Path) -> SentencePieceProcessor:
    """The vocabulary with sentinels as Google's code (seqio) adds them."""
    model = sentencepiece_model_pb2.ModelProto.FromString((vocabulary / "spiece.model").read_bytes())
    for number in reversed(range(100)):
        model.pieces.add(piece=f"▁<extra_id_{number}>", score=0.0, type=4)
    return SentencePieceProcessor(model_proto=model.SerializeToString())


@pytest.fixture(scope="module")
def documents() -> list[str]:
    """Prose and code: line breaks, braces, and indentation often enough that its runs become pieces.

    Always the same: where two segmentations of a run of spaces are equally likely, SentencePiece and Tokenizers
    choose differently, so another vocabulary could fail where Transformers is asked.
    """
    prose = (Path(__file__).resolve().parents[2] / "LICENSE").read_text()
    names = sorted({word.lower() for word in prose.split() if word.isalpha()})
    draw = random.Random(0)
    code = []
    for _ in range(400):
        first, second, third, fourth = draw.sample(names, 4)
        code.append(f"def {first}_{second}({third}):\n    if {third} > {draw.randint(0, 99)}:\n")
        code.append(f'        return {{"{fourth}": [{third}, {draw.randint(0, 99)}]}}\n')
        code.append(f"    for {fourth} in {third}:\n        while {fourth}:\n            {fourth} -= 1\n\n")
    return [prose, *("".join(code[i : i + 30]) for i in range(0, len(code), 30))]


@pytest.fixture(scope="module")
def trained(documents: list[str]) -> T5Tokenizer:
    return T5Tokenizer.train(documents, 700)


def test_golden_ids_and_text(published: T5Tokenizer, shared_data: Path) -> None:
    rows = json.loads((shared_data / "golden" / "t5_tokenizer.json").read_text())["rows"]
    assert published.encode_batch(row["text"] for row in rows) == [row["ids"] for row in rows]
    for row in rows:
        assert published.tokenize(row["text"]) == published.convert_ids_to_tokens(row["ids"][:-1])
        assert published.decode(row["ids"][:-1]) == row["decoded"]


def test_ids_of_the_published_vocabulary(published: T5Tokenizer) -> None:
    assert published.vocab_size == len(published) == 32_100
    assert (published.pad_token_id, published.eos_token_id, published.unk_token_id) == (0, 1, 2)
    assert published.sentinel_ids == list(range(32_099, 31_999, -1))
    assert published.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_99>", "▁Hello", "no such piece"]) == [
        32_099,
        32_000,
        8774,
        2,
    ]
    assert published.convert_ids_to_tokens([0, 32_099, 8774, 32_127]) == [
        "<pad>",
        "<extra_id_0>",
        "▁Hello",
        None,
    ]
    assert not published.lossless


def test_sentinels(published: T5Tokenizer) -> None:
    encode = published.encode
    assert encode("<extra_id_0>. Hello") == [32099, 5, 8774, 1]  # not [32099, 3, 5, …]: hf#24565
    assert encode("Hello <extra_id_1>.") == [8774, 32098, 5, 1]
    assert encode("A <extra_id_0> B") == [71, 32099, 272, 1]
    # Google's code takes these, not at a word's start, for plain text.
    assert encode("A<extra_id_0>B") == [71, 32099, 279, 1]
    assert encode("<extra_id_0><extra_id_1>") == [32099, 32098, 1]
    assert published.decode([71, 32099, 272]) == "A <extra_id_0> B"
    assert published.decode([32099, 21, 32098]) == "<extra_id_0> for <extra_id_1>"


def test_equals_google_with_sentinels_at_word_starts(
    published: T5Tokenizer, reference: SentencePieceProcessor
) -> None:
    for text in HOSTILE + AT_WORDS:
        ids = reference.encode(text)
        assert published.encode(text) == [*ids, 1], text
        assert published.decode(ids) == reference.decode(ids), text


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(texts, st.sampled_from([f" <extra_id_{i}>" for i in (0, 7, 99)])), max_size=6))
def test_equals_google_on_any_text(
    published: T5Tokenizer, reference: SentencePieceProcessor, parts: list[str]
) -> None:
    text = "".join(parts)
    ids = reference.encode(text)
    assert published.encode(text, add_special_tokens=False) == ids
    assert published.decode(ids) == reference.decode(ids)


def test_a_megabyte(published: T5Tokenizer, reference: SentencePieceProcessor) -> None:
    choices = random.Random(0).choices(HOSTILE + AT_WORDS, k=12_000)
    text = "\n".join(part for part in choices if len(part) < 1000)[:1_000_000]
    assert published.encode(text) == [*reference.encode(text), 1]
    # Many texts take another path than one.
    assert published.encode_batch(choices) == [[*reference.encode(part), 1] for part in choices]


def test_files_of_either_kind_have_one_fingerprint(vocabulary: Path, tmp_path: Path) -> None:
    prints = set()
    for name in ("spiece.model", "tokenizer.json"):
        (tmp_path / name).mkdir()
        shutil.copyfile(vocabulary / name, tmp_path / name / name)
        tokenizer = T5Tokenizer.from_pretrained(tmp_path / name)
        prints.add(tokenizer.fingerprint)
        tokenizer.save_pretrained(tmp_path / "saved")
        # The sentinels that the published tokenizer.json lists among the pieces do not belong there.
        assert (
            SentencePieceProcessor(model_file=str(tmp_path / "saved" / "spiece.model")).vocab_size() == 32_000
        )
    assert len(prints) == 1


def test_decode_special_tokens(published: T5Tokenizer) -> None:
    ids = [0, 8774, 6, 296, 55, 2, 32099, 1, 0, 0]
    assert published.decode(ids) == "<pad> Hello, world! ⁇  <extra_id_0></s><pad><pad>"
    assert published.decode(ids, skip_special_tokens=True) == "Hello, world!"
    assert published.batch_decode([ids, [], [1]], skip_special_tokens=True) == ["Hello, world!", "", ""]
    # The embedding has 28 rows that mean nothing, and a model with random weights writes them.
    assert published.decode([8774, 32_100, 32_127]) == "Hello"


def test_end_in_text_is_text(published: T5Tokenizer) -> None:
    assert published.eos_token_id not in published.encode("a </s> b", add_special_tokens=False)
    assert published.pad_token_id not in published.encode("<pad>")


def test_pairs_as_transformers(vocabulary: Path, published: T5Tokenizer) -> None:
    import transformers

    theirs = transformers.T5Tokenizer.from_pretrained(vocabulary)
    assert published.encode("one text", "another") == theirs.encode("one text", "another")
    assert published.encode_pairs(["one text"], ["another"]) == [theirs.encode("one text", "another")]
    ours, expected = (
        tokenizer(["one", "and two"], ["three", "x"], padding=True, return_tensors="pt")
        for tokenizer in (published, theirs)
    )
    assert ours.keys() == expected.keys()
    assert all((ours[key] == expected[key]).all() for key in expected)


def same_in_transformers(tokenizer: T5Tokenizer, directory: Path, examples: list[str]) -> None:
    import transformers

    tokenizer.save_pretrained(directory)
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    assert len(theirs) == tokenizer.vocab_size
    for name in ("pad_token_id", "eos_token_id", "unk_token_id"):
        assert getattr(theirs, name) == getattr(tokenizer, name)
    for text in examples:
        ids = tokenizer.encode(text)
        assert theirs.encode(text) == ids, text
        decoded = theirs.decode(ids, skip_special_tokens=True)
        if (
            tokenizer.unk_token_id in ids
        ):  # SentencePiece drops all spaces where an unknown piece began the text
            decoded = decoded.lstrip()
        assert tokenizer.decode(ids, skip_special_tokens=True) == decoded, text
    theirs.save_pretrained(directory / "theirs")
    assert not (directory / "theirs" / "spiece.model").exists()  # so tokenizer.json is what is read
    for place in (directory, directory / "theirs"):
        assert T5Tokenizer.from_pretrained(place).fingerprint == tokenizer.fingerprint


def test_published_in_transformers(published: T5Tokenizer, tmp_path: Path) -> None:
    same_in_transformers(published, tmp_path, HOSTILE + SENTINELS)


def test_trained_in_transformers(trained: T5Tokenizer, tmp_path: Path) -> None:
    same_in_transformers(trained, tmp_path, HOSTILE + SENTINELS)


def test_reads_what_transformers_t5_tokenizer_saves(vocabulary: Path, tmp_path: Path) -> None:
    import transformers

    for source in (vocabulary / "spiece.model", vocabulary / "tokenizer.json"):
        directory = tmp_path / source.suffix[1:]
        directory.mkdir()
        shutil.copyfile(source, directory / source.name)
        transformers.T5Tokenizer.from_pretrained(directory).save_pretrained(directory / "saved")
        ours = T5Tokenizer.from_pretrained(directory / "saved")
        assert ours.fingerprint == T5Tokenizer.from_pretrained(vocabulary).fingerprint


def test_tokens_that_a_user_added(vocabulary: Path, tmp_path: Path) -> None:
    import transformers

    shutil.copyfile(vocabulary / "spiece.model", tmp_path / "spiece.model")
    theirs = transformers.T5Tokenizer.from_pretrained(tmp_path)
    # The usual way around what T5's vocabulary lacks. (Normalised, the line break would match every space.)
    theirs.add_tokens([transformers.AddedToken(token, normalized=False) for token in ("{", "}", "\n")])
    theirs.save_pretrained(tmp_path / "json")
    old = tmp_path / "old"  # as Transformers 4 saved it
    old.mkdir()
    shutil.copyfile(vocabulary / "spiece.model", old / "spiece.model")
    (old / "added_tokens.json").write_text(json.dumps({"\n": 32102, "{": 32100, "}": 32101}))
    examples = ["a {b} c\nd", "{", "\n\n x", "f(x) = {<extra_id_0>}"]
    for directory in (tmp_path / "json", old):
        ours = T5Tokenizer.from_pretrained(directory)
        assert ours.vocab_size == 32_103
        assert ours.convert_tokens_to_ids("{") == 32_100
        for text in examples[:3]:
            assert ours.encode(text) == theirs.encode(text), text
            assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))
        ours.save_pretrained(tmp_path / "again")
        again = T5Tokenizer.from_pretrained(tmp_path / "again")
        assert again.fingerprint == ours.fingerprint
        assert again.encode_batch(examples) == ours.encode_batch(examples)
        assert not ours.releases_gil, "texts are cut at added tokens in Python"
        arrays = ours.encode_arrays(examples)
        assert [array.tolist() for array in arrays] == ours.encode_batch(examples, add_special_tokens=False)


def test_arrays_hold_what_lists_do(trained: T5Tokenizer) -> None:
    texts = ["plain", "a <extra_id_0>x<extra_id_1>", "of \u2581 both <extra_id_3>", "\u2581"]
    assert trained.releases_gil
    arrays = trained.encode_arrays(texts)
    assert [array.tolist() for array in arrays] == trained.encode_batch(texts, add_special_tokens=False)
    assert {array.dtype for array in arrays} == {np.dtype(np.int32)}


def test_sentinels_inside_the_model(documents: list[str], tmp_path: Path) -> None:
    """As mT5's: the SentencePiece model brings its sentinels, and none may be appended."""
    inside = T5Tokenizer.train(documents, 600, sentinels=0)
    assert inside.sentinel_ids == []
    model = sentencepiece_model_pb2.ModelProto.FromString(inside._vocabulary.spiece_model())
    for number in reversed(range(20)):
        model.pieces.add(piece=f"▁<extra_id_{number}>", score=0.0, type=4)
    (tmp_path / "spiece.model").write_bytes(model.SerializeToString())
    tokenizer = T5Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.vocab_size == 620
    assert tokenizer.sentinel_ids == list(range(619, 599, -1))
    assert tokenizer.convert_tokens_to_ids("<extra_id_0>") == 619
    assert tokenizer.encode("<extra_id_0>") == [619, 1]
    assert tokenizer.encode("x<extra_id_1>")[-2:] == [618, 1]
    same_in_transformers(tokenizer, tmp_path / "saved", HOSTILE + SENTINELS[:3])


@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_trained_round_trips_any_text(trained: T5Tokenizer, text: str) -> None:
    ids = trained.encode(text)
    assert ids[-1] == trained.eos_token_id
    assert trained.unk_token_id not in ids
    assert trained.decode(ids, skip_special_tokens=True) == text
    assert trained.decode(ids[:-1]) == text


def test_trained_keeps_every_character(trained: T5Tokenizer) -> None:
    assert trained.lossless
    surrogates = range(0xD800, 0xE000)
    every = "".join(chr(code) for code in range(0x3000) if code not in surrogates)
    for text in [*HOSTILE, every, every[::-1], "▁", " ▁ ▁", "a▁b\n▁"]:
        assert trained.decode(trained.encode(text, add_special_tokens=False)) == text


def test_trained_layout(trained: T5Tokenizer) -> None:
    assert trained.vocab_size == 800
    assert trained.convert_ids_to_tokens([0, 1, 2, 3, 4, 799, 700]) == [
        "<pad>",
        "</s>",
        "<unk>",
        "\n",
        "\t",
        "<extra_id_0>",
        "<extra_id_99>",
    ]
    assert trained.encode("{\n\t}")[:-1] == trained.convert_tokens_to_ids(["{", "\n", "\t", "}"])
    # A run of spaces, frequent in code, is one piece.
    assert len(trained.encode("        return")) < 6
    assert trained.encode("a <extra_id_0> b")[1] == 799
    assert trained.decode([799, 700]) == "<extra_id_0> <extra_id_99>"


def test_number_of_sentinels(documents: list[str], tmp_path: Path) -> None:
    tokenizer = T5Tokenizer.train(documents, 600, sentinels=7)
    assert tokenizer.sentinel_ids == list(range(606, 599, -1))
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()  # what a tool that knows only SentencePiece leaves
    assert T5Tokenizer.from_pretrained(tmp_path).fingerprint == tokenizer.fingerprint


def test_pickle(trained: T5Tokenizer) -> None:
    again = pickle.loads(pickle.dumps(trained))  # noqa: S301
    assert again.fingerprint == trained.fingerprint
    assert again.encode("x <extra_id_0>") == trained.encode("x <extra_id_0>")


def test_needs_no_torch() -> None:
    check = "import sys, unmask.t5.tokenizer, unmask.electra.tokenizer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "neither spiece.model nor tokenizer.json"),
        ({"spiece.model": "not a model"}, "is no SentencePiece model"),
        ({"spiece.model": ""}, "is no SentencePiece model"),
        ({"tokenizer.json": "{"}, "cannot be read as JSON"),
        ({"tokenizer.json": '{"model": {"type": "BPE"}}'}, "T5 needs Unigram"),
        ({"tokenizer.json": '{"model": {"type": "Unigram"}}'}, "is no tokenizer file that can be read"),
        (
            {"tokenizer.json": '{"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0]]}}'},
            "no Metaspace",
        ),
    ],
)
def test_unreadable_files(files: dict[str, str], message: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        T5Tokenizer.from_pretrained(tmp_path)


def test_a_gap_in_added_ids(trained: T5Tokenizer, tmp_path: Path) -> None:
    trained.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "added_tokens.json").write_text('{"late": 900}')
    with pytest.raises(UserError, match="'late' has id 900 where 800 would be next"):
        T5Tokenizer.from_pretrained(tmp_path)
