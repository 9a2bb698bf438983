"""CTranslate2 runs what we export, and writes what we write."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unmask.cli import _run
from unmask.errors import MissingExtraError, UserError
from unmask.export.ct2 import FILES, export, read_vocabulary
from unmask.t5.byte_tokenizer import ByT5Tokenizer, load_tokenizer
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.tokenizer import T5Tokenizer

ctranslate2 = pytest.importorskip("ctranslate2", reason="needs the extra ct2")

VARIANTS = ("v1.0", "v1.1", "UL2", "mT5", "umT5")
NEW = 16
END = 1

Saved = Callable[[str], Path]


def sources(count: int = 40) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 40, (count,), generator=generator).tolist()
    return [[*torch.randint(3, 279, (n,), generator=generator).tolist(), END] for n in lengths]


def padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    pad = torch.nn.utils.rnn.pad_sequence
    ids = [torch.tensor(row) for row in rows]
    return pad(ids, batch_first=True), pad([torch.ones_like(row) for row in ids], batch_first=True)


def until_end(row: list[int]) -> list[int]:
    return row[: row.index(END) + 1] if END in row else row


def ours(directory: Path, rows: list[list[int]], **options: Any) -> tuple[list[list[int]], Tensor]:
    model = T5ForConditionalGeneration.from_pretrained(directory)
    output = model.generate(*padded(rows), max_new_tokens=NEW, return_scores=True, **options)
    return [until_end(row[1:].tolist()) for row in output.sequences], output.sequence_scores


def theirs(directory: Path, rows: list[list[int]], **options: Any) -> tuple[list[list[int]], Tensor]:
    tokens = read_vocabulary(directory)
    ids = {token: number for number, token in enumerate(tokens)}
    translator = ctranslate2.Translator(str(directory), compute_type="float32", intra_threads=1)
    results = translator.translate_batch(
        [[tokens[number] for number in row] for row in rows],
        max_input_length=0,
        max_decoding_length=NEW,
        min_decoding_length=0,
        return_end_token=True,
        return_scores=True,
        **options,
    )
    written = [[ids[token] for token in result.hypotheses[0]] for result in results]
    return written, torch.tensor([result.scores[0] for result in results])


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_and_beams_are_ours(variant: str, saved: Saved, tmp_path: Path) -> None:
    model, rows = saved(variant), sources()
    export(model, tmp_path / "ct2")
    written, _ = ours(model, rows)
    assert theirs(tmp_path / "ct2", rows, beam_size=1)[0] == written
    assert len({len(row) for row in written}) > 2
    for penalty in (0.0, 1.0):
        # CTranslate2 stops as early_stopping=True does.
        expected, scores = ours(model, rows, num_beams=4, early_stopping=True, length_penalty=penalty)
        found, their_scores = theirs(tmp_path / "ct2", rows, beam_size=4, length_penalty=penalty)
        assert found == expected
        assert torch.allclose(scores, their_scores, atol=1e-3)


@pytest.mark.parametrize(("dtype", "share"), [("int8", 0.27), ("bfloat16", 0.51)])
def test_narrow_weights(dtype: Any, share: float, saved: Saved, tmp_path: Path) -> None:
    model, rows = saved("v1.1"), sources()
    for name in ("float32", dtype):
        export(model, tmp_path / name, dtype=name)
    sizes = [(tmp_path / name / "model.bin").stat().st_size for name in ("float32", dtype)]
    # Position tables and norms stay float32 in int8, and these matrices are small.
    assert sizes[1] / sizes[0] < share + 0.06
    wide, narrow = (theirs(tmp_path / name, rows, beam_size=1)[0] for name in ("float32", dtype))
    assert sum(a[:2] == b[:2] for a, b in zip(wide, narrow, strict=True)) > 0.7 * len(rows)


def test_a_stored_int8_model_is_exported(saved: Saved, tmp_path: Path) -> None:
    model = T5ForConditionalGeneration.from_pretrained(saved("v1.0"), dtype="int8")
    model.save_pretrained(tmp_path / "int8")
    ByT5Tokenizer(extra_ids=20).save_pretrained(tmp_path / "int8")
    export(tmp_path / "int8", tmp_path / "ct2")
    wide = T5ForConditionalGeneration.from_pretrained(tmp_path / "int8", dtype="float32")
    wide.save_pretrained(tmp_path / "wide")
    assert theirs(tmp_path / "ct2", sources(), beam_size=1)[0] == ours(tmp_path / "wide", sources())[0]


def test_sentencepiece_vocabulary_and_what_lies_beside(
    tmp_path: Path, documents: list[str], use_of: Callable[[Path], None]
) -> None:
    tokenizer = T5Tokenizer.train(documents[:400], 400, sentinels=10)
    torch.manual_seed(0)
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    model = T5ForConditionalGeneration(T5Config(vocab_size=416, **shape))
    model.generation_defaults = {"num_beams": 3}
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    export(tmp_path / "model", tmp_path / "ct2")
    use_of(tmp_path / "ct2")
    tokens = read_vocabulary(tmp_path / "ct2")
    assert tokens[:410] == tokenizer.convert_ids_to_tokens(range(410))
    assert tokens[410:] == [f"<unused_{number}>" for number in range(410, 416)]
    again = load_tokenizer(tmp_path / "ct2")
    assert again.fingerprint == tokenizer.fingerprint
    assert '"num_beams": 3' in (tmp_path / "ct2" / "generation_config.json").read_text()


def test_a_tokenizer_of_another_model_is_refused(saved: Saved, tmp_path: Path) -> None:
    model = saved("v1.0")
    ByT5Tokenizer(extra_ids=42).save_pretrained(model)
    with pytest.raises(UserError, match="the tokenizer has 301 tokens, the model knows 300"):
        export(model, tmp_path / "ct2")
    assert not (tmp_path / "ct2").exists()


def test_what_is_there_is_replaced_only_on_demand(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = saved("v1.0"), tmp_path / "ct2"
    command = ["export", "ct2", str(model), "--out", str(out)]
    assert _run(command) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert all((out / name).is_file() for name in FILES)
    before = (out / "model.bin").stat().st_size
    assert _run([*command, "--dtype", "int8"]) == 2
    assert "holds an earlier export: replace it with --overwrite" in capsys.readouterr().err
    assert (out / "model.bin").stat().st_size == before
    assert _run([*command, "--dtype", "int8", "--overwrite"]) == 0
    assert (out / "model.bin").stat().st_size < before / 2
    # A directory of anything else is nobody's to replace.
    assert _run(["export", "ct2", str(model), "--out", str(model), "--overwrite"]) == 2
    assert "holds something else than an earlier export" in capsys.readouterr().err
    assert (model / "model.safetensors").is_file()


def test_electra_and_a_missing_extra_are_refused(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "electra").mkdir()
    (tmp_path / "electra" / "config.json").write_text('{"model_type": "electra"}')
    with pytest.raises(UserError, match="holds a model of type 'electra': CTranslate2 takes t5, mt5, umt5"):
        export(tmp_path / "electra", tmp_path / "ct2")
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'unmask\[ct2\]'"):
        export(saved("v1.0"), tmp_path / "ct2")
