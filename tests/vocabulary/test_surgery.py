"""Trimmed and extended checkpoints: the same outputs to the bit for tokens that stay, and means for those that come."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unmask.cli import _run
from unmask.electra.config import ElectraConfig
from unmask.electra.heads import ElectraForSequenceClassification
from unmask.electra.model import ElectraForMaskedLM, ElectraForPreTraining
from unmask.electra.pair import ElectraPair
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.t5.byte_tokenizer import ByT5Tokenizer
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.tokenizer import T5Tokenizer
from unmask.text.surgery import frequent_merges
from unmask.vocabulary.surgery import extend, trim

SMALL = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
SIZES: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
TEXTS = ["a small inn by the river with a garden", "cheap food, and a garden in the city centre"]


@pytest.fixture(scope="module")
def t5_tokenizer(documents: list[str]) -> T5Tokenizer:
    return T5Tokenizer.train(documents[:1500], 900, sentinels=10)


@pytest.fixture(scope="module")
def electra_tokenizer(documents: list[str]) -> ElectraTokenizer:
    return ElectraTokenizer.train(documents[:1500], 600)


def _t5(directory: Path, tokenizer: T5Tokenizer, *, tied: bool) -> Path:
    torch.manual_seed(0)
    config = T5Config(vocab_size=tokenizer.vocab_size + 6, tie_word_embeddings=tied, **SMALL)
    T5ForConditionalGeneration(config).eval().save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _pair(directory: Path, tokenizer: ElectraTokenizer) -> Path:
    torch.manual_seed(0)
    config = ElectraConfig(vocab_size=tokenizer.vocab_size, **SIZES)
    pair = ElectraPair.fresh(config, config)
    for parameter in pair.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    pair.save_pretrained(directory)
    for part in (directory, directory / "generator", directory / "discriminator"):
        tokenizer.save_pretrained(part)
    return directory


def _numbers(before: Any, after: Any) -> dict[int, int]:
    """New id → old id, by the tokens' names."""
    old = {token: i for i, token in enumerate(before.convert_ids_to_tokens(range(before.vocab_size)))}
    return {i: old[t] for i, t in enumerate(after.convert_ids_to_tokens(range(after.vocab_size))) if t in old}


@pytest.mark.parametrize("tied", [True, False])
def test_trimmed_t5_computes_the_same(t5_tokenizer: T5Tokenizer, tmp_path: Path, tied: bool) -> None:
    source = _t5(tmp_path / "model", t5_tokenizer, tied=tied)
    (source / "generation_config.json").write_text(
        json.dumps({"eos_token_id": 1, "forced_eos_token_id": 700})
    )
    done = trim(str(source), tmp_path / "out", lambda: TEXTS)
    before, after = t5_tokenizer, T5Tokenizer.from_pretrained(tmp_path / "out")
    assert after.vocab_size < before.vocab_size - 100
    assert done.sizes[1].ids == after.vocab_size
    assert done.sizes[1].bytes == sum(
        t.nbytes for t in T5ForConditionalGeneration.from_pretrained(tmp_path / "out").hub_state().values()
    )
    assert after.tokenize(TEXTS[0]) == before.tokenize(TEXTS[0])
    assert after.convert_ids_to_tokens(after.sentinel_ids) == before.convert_ids_to_tokens(
        before.sentinel_ids
    )
    assert after.decode(after.encode("any 中 text\n{"), skip_special_tokens=True) == "any 中 text\n{"
    numbers = _numbers(before, after)
    forced = json.loads((tmp_path / "out" / "generation_config.json").read_text())["forced_eos_token_id"]
    assert numbers[forced] == 700

    models = [T5ForConditionalGeneration.from_pretrained(path) for path in (source, tmp_path / "out")]
    rows = [t.encode(f"{TEXTS[0]} <extra_id_0>{TEXTS[1]}", return_tensors="pt") for t in (before, after)]
    assert torch.tensor([numbers[i] for i in rows[1][0].tolist()]).equal(rows[0][0])
    logits = [m(input_ids=row, labels=row).logits for m, row in zip(models, rows, strict=True)]
    assert logits[1].shape[-1] == after.vocab_size
    assert torch.equal(logits[0][..., [numbers[i] for i in range(after.vocab_size)]], logits[1])


def test_trimmed_pair_computes_the_same(electra_tokenizer: ElectraTokenizer, tmp_path: Path) -> None:
    source = _pair(tmp_path / "model", electra_tokenizer)
    trim(str(source), tmp_path / "out", lambda: TEXTS)
    before, after = electra_tokenizer, ElectraTokenizer.from_pretrained(tmp_path / "out")
    assert after.vocab_size < before.vocab_size - 100
    assert (after.pad_token_id, after.mask_token) == (0, "[MASK]")
    assert after.unk_token_id not in after.encode("any other TEXT 19 (of ASCII)")
    numbers = _numbers(before, after)
    rows = [t.encode(f"{TEXTS[0]} [MASK]", TEXTS[1], return_tensors="pt") for t in (before, after)]
    assert torch.tensor([numbers[i] for i in rows[1][0].tolist()]).equal(rows[0][0])
    for part, kind in (("generator", ElectraForMaskedLM), ("discriminator", ElectraForPreTraining)):
        assert ElectraTokenizer.from_pretrained(tmp_path / "out" / part).fingerprint == after.fingerprint
        old, new = (
            kind.from_pretrained(path / part)(row).logits
            for path, row in zip((source, tmp_path / "out"), rows, strict=True)
        )
        if part == "generator":
            old = old[..., [numbers[i] for i in range(after.vocab_size)]]
        assert torch.equal(old, new), part


def test_trimmed_to_a_size(electra_tokenizer: ElectraTokenizer, documents: list[str], tmp_path: Path) -> None:
    source = _pair(tmp_path / "model", electra_tokenizer)
    trim(str(source), tmp_path / "out", lambda: [*documents[1000:1300], "river " * 500], vocab_size=200)
    after = ElectraTokenizer.from_pretrained(tmp_path / "out")
    assert after.vocab_size == 200
    assert after.tokenize("river") == electra_tokenizer.tokenize("river"), "the most frequent stay"
    with pytest.raises(UserError, match=r"vocab_size 20 is too small: .* alone are 1"):
        trim(str(source), tmp_path / "small", lambda: TEXTS, vocab_size=20)


def test_words_for_t5(t5_tokenizer: T5Tokenizer, tmp_path: Path) -> None:
    source = _t5(tmp_path / "model", t5_tokenizer, tied=False)
    extend(str(source), tmp_path / "out", words=["Xylokarpz", "the"])
    after = T5Tokenizer.from_pretrained(tmp_path / "out")
    assert after.vocab_size == t5_tokenizer.vocab_size + 2, "'the' is a token already"
    assert after.tokenize("(Xylokarpz) Xylokarpz") == ["(", "Xylokarpz", ")", "▁Xylokarpz"]
    old, new = (
        T5ForConditionalGeneration.from_pretrained(path).state_dict() for path in (source, tmp_path / "out")
    )
    pieces = t5_tokenizer.encode("Xylokarpz", add_special_tokens=False)
    assert len(pieces) > 2
    place = after.convert_tokens_to_ids("Xylokarpz")
    for name in ("embedding.weight", "output.weight"):
        torch.testing.assert_close(new[name][place], old[name][pieces].mean(0), rtol=0, atol=1e-7)
        assert new[name][after.sentinel_ids].equal(old[name][t5_tokenizer.sentinel_ids])
        assert new[name][: place - 1].equal(old[name][: place - 1])
    text = f"{TEXTS[0]} <extra_id_3> {TEXTS[1]}"
    assert after.tokenize(text) == t5_tokenizer.tokenize(text)


@pytest.mark.parametrize("family", ["t5", "electra"])
def test_tokens_from_a_corpus(
    family: str, t5_tokenizer: T5Tokenizer, electra_tokenizer: ElectraTokenizer, tmp_path: Path
) -> None:
    make: Callable[[], Path] = {
        "t5": lambda: _t5(tmp_path / "model", t5_tokenizer, tied=True),
        "electra": lambda: _pair(tmp_path / "model", electra_tokenizer),
    }[family]
    texts = ["zygomorphic ж blorptastic zygomorphic", "blorptastic жж zygomorphics"] * 30
    done = extend(str(make()), tmp_path / "out", read=lambda: texts, count=25)
    assert done.measured is not None
    before, after = done.measured
    assert after.fertility < before.fertility / 2
    assert (before.unknown > 0) == (family == "electra")
    assert after.unknown == 0
    made = done.tokenizers[1]
    assert (
        made.vocab_size == done.tokenizers[0].vocab_size + len(done.new) <= done.tokenizers[0].vocab_size + 25
    )
    assert made.tokenize("zygomorphic")[-1].endswith("zygomorphic")
    again = extend(str(tmp_path / "model"), tmp_path / "again", read=lambda: texts[::-1], count=25)
    assert again.tokenizers[1].fingerprint == made.fingerprint
    part = tmp_path / "out" / ("generator" if family == "electra" else "")
    assert json.loads((part / "config.json").read_text())["vocab_size"] == made.vocab_size


def test_a_classifier_without_output_rows(electra_tokenizer: ElectraTokenizer, tmp_path: Path) -> None:
    config = ElectraConfig(vocab_size=electra_tokenizer.vocab_size, labels=("a", "b", "c"), **SIZES)
    ElectraForSequenceClassification(config).save_pretrained(tmp_path / "model")
    electra_tokenizer.save_pretrained(tmp_path / "model")
    extend(str(tmp_path / "model"), tmp_path / "out", words=["zygomorphic"])
    loaded = ElectraForSequenceClassification.from_pretrained(tmp_path / "out")
    assert loaded.config.labels == ("a", "b", "c")
    ids = ElectraTokenizer.from_pretrained(tmp_path / "out").encode("a zygomorphic inn")
    assert ids[2] == electra_tokenizer.vocab_size
    assert loaded([ids]).logits.shape == (1, 3)


def test_merges() -> None:
    runs = [(1, 2, 3)] * 5 + [(1, 2)] * 2 + [(7, 8)] * 3 + [(9, 9)]
    assert frequent_merges(runs, 10) == [(1, 2), (1, 2, 3), (7, 8)]
    assert frequent_merges(runs, 1) == [(1, 2)]


def test_refused(t5_tokenizer: T5Tokenizer, electra_tokenizer: ElectraTokenizer, tmp_path: Path) -> None:
    config = T5Config(vocab_size=384, **SMALL)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "bytes")
    ByT5Tokenizer().save_pretrained(tmp_path / "bytes")
    with pytest.raises(UserError, match="reads bytes"):
        trim(str(tmp_path / "bytes"), tmp_path / "out", lambda: TEXTS)
    source = _t5(tmp_path / "t5", t5_tokenizer, tied=True)
    with pytest.raises(UserError, match="there is nothing to add"):
        extend(str(source), tmp_path / "out", words=["the"])
    T5ForConditionalGeneration.from_pretrained(source, dtype="int8").save_pretrained(source)
    with pytest.raises(UserError, match="int8 weights"):
        trim(str(source), tmp_path / "out", lambda: TEXTS)
    pair = _pair(tmp_path / "pair", electra_tokenizer)
    with pytest.raises(UserError, match="'e-mail' is parted into e - mail"):
        extend(str(pair), tmp_path / "out", words=["e-mail"])


def test_commands(
    electra_tokenizer: ElectraTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _pair(tmp_path / "model", electra_tokenizer)
    (tmp_path / "text.txt").write_text("\n".join(TEXTS))
    out, text = str(tmp_path / "out"), str(tmp_path / "text.txt")
    assert _run(["vocabulary", "trim", str(source), text, "--out", out]) == 0
    assert "tokens removed" in capsys.readouterr().out
    assert (tmp_path / "out" / "vocabulary.html").is_file()
    extended = [
        "vocabulary",
        "extend",
        str(source),
        "--tokens",
        "zygomorphic",
        "blorp",
        "--on",
        text,
        "--out",
        out,
    ]
    assert _run(extended) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert _run([*extended, "--overwrite"]) == 0
    assert ElectraTokenizer.from_pretrained(out).vocab_size == electra_tokenizer.vocab_size + 2
    assert _run(["vocabulary", "extend", str(source), "--from", text, "--out", str(tmp_path / "b")]) == 2
    assert "--from and --size go together" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
