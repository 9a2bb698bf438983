"""CTranslate2 as an engine writes what our own engine writes, or refuses by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unmask.cli import _run
from unmask.errors import UserError
from unmask.export.ct2 import export
from unmask.export.ct2_writer import CTranslate2Writer
from unmask.t5.byte_tokenizer import load_tokenizer
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.writing import T5Writer

pytest.importorskip("ctranslate2", reason="needs the extra ct2")

Saved = Callable[[str], Path]

TEXTS = [f"{'abcdefghij'[: number % 11]} text {number * 37 % 101}" for number in range(60)]


@pytest.fixture
def both(saved: Saved, tmp_path: Path) -> tuple[T5ForConditionalGeneration, Path]:
    """A model, and its export."""
    directory = saved("v1.1")
    export(directory, tmp_path / "ct2")
    return T5ForConditionalGeneration.from_pretrained(directory), tmp_path / "ct2"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 4, "early_stopping": True},
        {"num_beams": 4, "early_stopping": True, "length_penalty": 0.3, "num_return_sequences": 3},
        {"repetition_penalty": 1.4},
        {"no_repeat_ngram_size": 2},
        {"min_new_tokens": 5},
        {"prefix": "q: ", "max_source_length": 6},
        {"decoder_prefix": "an", "min_new_tokens": 3},
        {"decoder_prefix": "an", "repetition_penalty": 1.4},
        {"do_sample": True, "top_k": 1, "num_return_sequences": 2},
        {"max_length": 9},
    ],
    ids=str,
)
def test_results_are_those_of_our_engine(
    options: dict[str, Any], both: tuple[T5ForConditionalGeneration, Path]
) -> None:
    model, directory = both
    limit = {} if "max_length" in options else {"max_new_tokens": 12}
    # Small batches: neither engine may mix up which result is whose.
    settings = options | limit | {"scores": True, "batch_tokens": 600}
    ours = T5Writer(model, load_tokenizer(directory), **settings).write(TEXTS)
    theirs = CTranslate2Writer(directory, **settings).write(TEXTS)
    assert {len(results) for results in ours} == {options.get("num_return_sequences", 1)}
    assert {one.complete for results in ours for one in results} == {True, False}
    for expected, found in zip(ours, theirs, strict=True):
        for one, other in zip(expected, found, strict=True):
            assert (one.text, one.complete, one.tokens) == (other.text, other.complete, other.tokens)
            assert one.score == pytest.approx(other.score, abs=1e-3)
            assert one.token_scores == pytest.approx(other.token_scores, abs=1e-3)


def test_without_scores(both: tuple[T5ForConditionalGeneration, Path]) -> None:
    model, directory = both
    ours = T5Writer(model, load_tokenizer(directory), max_new_tokens=12).write(TEXTS)
    assert CTranslate2Writer(directory, max_new_tokens=12).write(TEXTS) == ours


def test_draws_follow_the_models_distribution(both: tuple[T5ForConditionalGeneration, Path]) -> None:
    model, directory = both
    options = {"do_sample": True, "temperature": 0.5, "top_k": 8, "max_new_tokens": 1, "scores": True}
    drawn = CTranslate2Writer(directory, **options).write(["a text"] * 2000)
    counts = Counter(results[0].tokens[0] for results in drawn)
    tokenizer = load_tokenizer(directory)
    ids = tokenizer.encode("a text", return_tensors="pt")
    with torch.inference_mode():
        logits = model(ids, decoder_input_ids=torch.tensor([[0]])).logits[0, 0]
    top = (logits / 0.5).topk(8)
    names = [name or "" for name in tokenizer.convert_ids_to_tokens(top.indices)]
    shares: Counter[str] = Counter()
    for name, share in zip(names, top.values.softmax(0).tolist(), strict=True):
        shares[name] += share
    assert set(counts) <= set(shares)
    # Standard deviations of a share of 2,000 are at most 0.011.
    for name, share in shares.items():
        assert counts[name] / 2000 == pytest.approx(share, abs=0.05)
    # Scores are the model's own, before temperature and filter.
    own = dict(zip(names, logits.log_softmax(0)[top.indices].tolist(), strict=True))
    one = next(results[0] for results in drawn if names.count(results[0].tokens[0]) == 1)
    assert one.score == pytest.approx(own[one.tokens[0]], abs=1e-3)


@pytest.mark.parametrize("decoder_prefix", ["", "an"])
def test_streams_what_it_writes(decoder_prefix: str, both: tuple[T5ForConditionalGeneration, Path]) -> None:
    writer = CTranslate2Writer(both[1], max_new_tokens=12, decoder_prefix=decoder_prefix)
    for text in TEXTS[:8]:
        pieces = list(writer.stream(text))
        assert "".join(pieces) == writer.write([text])[0][0].text
    assert len(pieces) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 4}, "num_beams=4 with early_stopping=False: CTranslate2's beams stop"),
        ({"speculate": True}, "speculate does not work with CTranslate2"),
        ({"do_sample": True, "min_p": 0.1}, "min_p does not work with CTranslate2"),
        ({"do_sample": True, "seed": 1}, "seed does not work with CTranslate2, its draws cannot be repeated"),
        *(
            (
                {"num_beams": 2, "early_stopping": True, name: value},
                f"{name} with num_beams=2 would be another",
            )
            for name, value in {
                "repetition_penalty": 1.2,
                "no_repeat_ngram_size": 2,
                "min_new_tokens": 3,
                "decoder_prefix": "a",
            }.items()
        ),
        ({"max_tokens": 3}, "unknown option of generate: max_tokens"),
        ({"device": "mps"}, "cpu and cuda, not on mps"),
    ],
)
def test_refusals(
    options: dict[str, Any], message: str, both: tuple[T5ForConditionalGeneration, Path]
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        CTranslate2Writer(both[1], **options)


def test_beams_do_not_stream(both: tuple[T5ForConditionalGeneration, Path]) -> None:
    writer = CTranslate2Writer(both[1], num_beams=2, early_stopping=True)
    with pytest.raises(UserError, match="num_beams=2"):
        writer.stream("a")


def test_command(
    both: tuple[T5ForConditionalGeneration, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, directory = tmp_path / "model", both[1]
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:5]) + "\n")
    options = ["--max-new-tokens", "8"]
    assert _run(["generate", str(model), str(tmp_path / "texts.txt"), *options]) == 0
    expected = capsys.readouterr().out
    engine = ["--engine", "ctranslate2"]
    assert _run(["generate", str(directory), str(tmp_path / "texts.txt"), *options, *engine]) == 0
    assert capsys.readouterr().out == expected
    out = tmp_path / "out.txt"
    assert (
        _run(["generate", str(directory), str(tmp_path / "texts.txt"), *options, *engine, "--out", str(out)])
        == 0
    )
    assert out.read_text() == expected
    capsys.readouterr()
    for command, message in (
        ([str(directory)], "is an export for CTranslate2: run it with --engine ctranslate2"),
        ([str(model), *engine], "is no export for CTranslate2 (it has no model.bin)"),
        ([str(directory), *engine, "--regex", "a+"], "choices, regex and json_schema do not work"),
        ([str(directory), *engine, "--dtype", "float16"], "CTranslate2 cannot load"),
    ):
        assert _run(["generate", *command, "--text", "a"]) == 2
        assert message in capsys.readouterr().err
