"""Constraints said in text, with T5's own vocabulary."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from unmask.errors import UserError
from unmask.t5.config import T5Config
from unmask.t5.constraints import choices, json_schema, regex, vocabulary_of
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.tokenizer import T5Tokenizer

pytest.importorskip("llguidance")


@pytest.fixture(scope="module")
def published(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> T5Tokenizer:
    directory = tmp_path_factory.mktemp("published")
    (directory / "spiece.model").write_bytes((shared_data / "vocab" / "t5" / "spiece.model").read_bytes())
    return T5Tokenizer.from_pretrained(directory)


@pytest.fixture(scope="module")
def trained() -> T5Tokenizer:
    texts = ['{"name": "a b", "n": 12}\n', "the cat sat on the mat", "[true, false] naïve"] * 40
    return T5Tokenizer.train(texts, 360)


def model_for(tokenizer: T5Tokenizer, seed: int) -> T5ForConditionalGeneration:
    torch.manual_seed(seed)
    size = len(tokenizer) + 28
    config = T5Config(vocab_size=size, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return T5ForConditionalGeneration(config).eval()


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True, "seed": 1}], ids=str)
def test_results_are_what_was_asked_for(published: T5Tokenizer, options: dict[str, int]) -> None:
    model = model_for(published, 0)
    inputs = published(["one input", "another, longer input"], padding=True, return_tensors="pt")
    labels = ["positive", "negative", "not sure"]
    found = model.generate(**inputs, constraint=choices(published, labels), max_new_tokens=6, **options)
    assert set(published.batch_decode(found, skip_special_tokens=True)) <= set(labels)
    pattern = "(yes|no), [0-9]{2,3} (cats|dogs)"
    found = model.generate(**inputs, constraint=regex(published, pattern), max_new_tokens=25, **options)
    for text in published.batch_decode(found, skip_special_tokens=True):
        assert re.fullmatch(pattern, text)


def test_json_is_what_the_schema_allows(trained: T5Tokenizer) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "n": {"enum": [1, 22, "a b"]}},
        "required": ["ok", "n"],
        "additionalProperties": False,
    }
    for seed in range(3):
        model = model_for(trained, seed)
        inputs = trained(["one input", "another, longer input"], padding=True, return_tensors="pt")
        found = model.generate(
            **inputs, constraint=json_schema(trained, schema), max_new_tokens=60, do_sample=True, seed=seed
        )
        for text in trained.batch_decode(found, skip_special_tokens=True):
            value = json.loads(text)
            assert value.keys() == {"ok", "n"} and value["n"] in (1, 22, "a b")


def test_every_text_is_reachable_with_and_without_its_first_space(published: T5Tokenizer) -> None:
    """The canonical encoding, and the one whose first word has no space, of each text that matches."""
    vocabulary = vocabulary_of(published)
    assert vocabulary.drops_first_space
    for text in ("hello world", "a", "12, Café", "(x) y"):
        constraint = regex(published, re.escape(text))
        for ids in (
            published.encode(text),
            [*vocabulary.encode(text), 1],
            [*vocabulary.encode(" " + text), 1],
        ):
            assert published.decode(ids, skip_special_tokens=True) == text
            rule = constraint.start(1, 99, 1)
            for token in ids:
                allowed = rule.apply(torch.zeros(1, 32128), torch.zeros(1, 1, dtype=torch.int64))
                assert allowed[0, token] == 0, (text, published.convert_ids_to_tokens(ids), token)
                rule.follow(torch.zeros(1, dtype=torch.int64), torch.tensor([token]))


def test_what_a_vocabulary_writes_is_what_decoding_shows(
    trained: T5Tokenizer, published: T5Tokenizer
) -> None:
    for tokenizer in (trained, published):
        vocabulary = vocabulary_of(tokenizer)
        assert vocabulary.drops_first_space is not tokenizer.lossless
        for first in range(3, min(len(vocabulary.pieces), 4000), 7):
            pieces = vocabulary.pieces[first : first + 2]
            if all(pieces) and len(pieces) == 2:
                text = b"".join(pieces).decode(errors="replace")
                expected = text.lstrip(" ") if vocabulary.drops_first_space else text
                assert tokenizer.decode([first, first + 1]) == expected


def test_what_the_vocabulary_cannot_write_is_refused(published: T5Tokenizer) -> None:
    with pytest.raises(UserError, match=r"choice 'a\{b' cannot be written"):
        choices(published, ["fine", "a{b"])
    with pytest.raises(UserError, match="no piece of the vocabulary writes"):
        json_schema(published, {"type": "object"})
