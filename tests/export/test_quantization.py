"""What low precision is said to cost is what it costs, and what loses too much stays out of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

from unmask.cli import _run
from unmask.errors import UserError
from unmask.export.cost import Sample
from unmask.export.product_errors import product_errors
from unmask.export.quantization import quantize
from unmask.export.t5_measurement import Measured, Pairs, cost, losses, measure
from unmask.nn.kept import Bfloat16Linear
from unmask.nn.linear import pack
from unmask.report.card import CARD
from unmask.t5.byte_tokenizer import ByT5Tokenizer, load_tokenizer
from unmask.t5.model import T5ForConditionalGeneration

Saved = Callable[[str], Path]

SOURCES = [f"source {number} {'abcdefgh'[: number % 9]}" for number in range(40)]
TARGETS = [f"target {number}" for number in range(40)]
#: A product whose input has one channel that dwarfs the others, and that its matrix does not read.
DIFFICULT = "encoder.layers.1.feed_forward.down"


@pytest.fixture
def difficult(saved: Saved) -> Path:
    directory = saved("v1.1")
    model = T5ForConditionalGeneration.from_pretrained(directory)
    with torch.no_grad():
        block = model.encoder.layers[1].feed_forward
        block.up.weight[0] *= 3000
        block.down.weight.mul_(10)[:, 0] = 0
    model.save_pretrained(directory)
    return directory


def pairs_of(directory: Path) -> Pairs:
    return Pairs.of(load_tokenizer(directory), SOURCES, TARGETS)


def test_losses_are_what_score_gives(saved: Saved) -> None:
    directory = saved("v1.1")
    model, pairs = T5ForConditionalGeneration.from_pretrained(directory), pairs_of(directory)
    for row in (0, 7, 39):
        expected = -model.score(torch.tensor([pairs.source_ids[row]]), [list(pairs.target_ids[row])])
        assert losses(model, pairs)[row] == pytest.approx(expected.item(), rel=1e-4)


def test_the_error_of_a_product_is_that_of_its_outputs(saved: Saved) -> None:
    directory = saved("v1.1")
    model, pairs = T5ForConditionalGeneration.from_pretrained(directory), pairs_of(directory)
    model.fold()
    seen: list[torch.Tensor] = []
    watched = model.decoder.layers[0].cross_attention.output
    hook = watched.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with product_errors(model) as errors:
        losses(model, pairs)
    hook.remove()
    x = torch.cat(seen)
    exact = F.linear(x, watched.weight)
    expected = (pack(watched.weight, "int8")(x) - exact).norm() / exact.norm()
    assert errors["decoder.layers.0.cross_attention.output"] == pytest.approx(expected.item(), rel=1e-3)
    assert set(errors) == set(model.products())
    assert all(0.001 < error < 0.05 for error in errors.values())
    assert not any(module._forward_hooks for module in model.modules())


def test_what_loses_too_much_stays_bfloat16(difficult: Path, tmp_path: Path) -> None:
    found = quantize(difficult, tmp_path / "int8", sample=Sample(SOURCES, TARGETS))
    assert [product.name for product in found.products if product.kept] == [DIFFICULT]
    assert found.products[0].error is not None and found.products[0].error > 0.5
    throughout, written = found.costs[1:]
    assert throughout.name == "int8 throughout"
    loaded = T5ForConditionalGeneration.from_pretrained(tmp_path / "int8")
    kept = [name for name, module in loaded.named_modules() if isinstance(module, Bfloat16Linear)]
    assert kept == [DIFFICULT]
    # What is reported of the model is true of the one that was written.
    tokenizer, pairs = load_tokenizer(tmp_path / "int8"), pairs_of(difficult)
    again = measure(loaded, tokenizer, pairs)
    exact = measure(T5ForConditionalGeneration.from_pretrained(difficult), tokenizer, pairs)
    throughout_losses = losses(T5ForConditionalGeneration.from_pretrained(difficult, dtype="int8"), pairs)
    errors = [float(np.linalg.norm(one - exact.losses)) for one in (again.losses, throughout_losses)]
    assert 1.5 * errors[0] < errors[1], errors
    assert throughout.loss.loss * found.units == pytest.approx(throughout_losses.sum())
    assert cost(written.name, again, exact, pairs).loss.loss == pytest.approx(written.loss.loss, abs=1e-5)
    assert [d.written for d in found.differences] == [
        a for a, b in zip(again.texts, exact.texts, strict=True) if a != b
    ]


def test_thresholds_and_names(difficult: Path, tmp_path: Path) -> None:
    def kept(out: str, **options: object) -> list[str]:
        found = quantize(difficult, tmp_path / out, **options)
        return sorted(product.name for product in found.products if product.kept)

    sample = Sample(SOURCES[:4], TARGETS[:4])
    assert kept("a", sample=sample, keep_above=1e9) == []
    assert len(kept("b", sample=sample, keep_above=0)) == len(kept("c", keep=["*"])) > 10
    assert kept("d", keep=["encoder.layers.0.attention.key", "output"]) == [
        "encoder.layers.0.attention.query_key_value",
        "output",
    ]
    assert kept("e", keep=["decoder.*.feed_forward.up"], sample=sample) == [
        "decoder.layers.0.feed_forward.up",
        DIFFICULT,
    ]


def test_bfloat16_is_for_everyone(saved: Saved, tmp_path: Path, use_of: Callable[[Path], None]) -> None:
    found = quantize(saved("v1.0"), tmp_path / "narrow", dtype="bfloat16", sample=Sample(SOURCES, TARGETS))
    assert [one.name for one in found.costs] == ["float32", "bfloat16"]
    assert abs(found.costs[1].loss.change) < 0.05
    assert found.bytes < 0.55 * found.float32_bytes
    card = (tmp_path / "narrow" / CARD).read_text()
    assert f"| outputs that are float32's | {found.costs[1].identical:.1%} |" in card
    use_of(tmp_path / "narrow")
    model = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "narrow")
    assert model.dtype == torch.bfloat16


def test_costs_of_known_differences() -> None:
    pairs = Pairs(["a", "b"], ["one", "two"], [[5, 1], [6, 1]], [[7, 8, 1], [9]])
    exact = Measured(np.array([3.0, 1.0]), ["one", "2"])
    other = Measured(np.array([3.5, 1.5]), ["one", "two"])
    found = cost("other", other, exact, pairs)
    assert (found.loss.loss, found.loss.change, found.identical) == (
        pytest.approx(1.25),
        pytest.approx(0.25),
        0.5,
    )
    # Resampled pairs: the first alone gives 0.5 / 3, the second alone 0.5.
    assert found.loss.low == pytest.approx(0.5 / 3) and found.loss.high == pytest.approx(0.5)
    assert (found.target_chrf, cost("same", exact, exact, pairs).chrf) == (100.0, 100.0)


def test_command(saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = saved("v1.0"), tmp_path / "int8"
    rows = [json.dumps({"in": s, "out": t}) for s, t in zip(SOURCES, TARGETS, strict=True)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    command = ["quantize", str(model), "--out", str(out), "--threads", "1"]
    measured = [*command, "--on", str(tmp_path / "pairs.jsonl"), "--source", "in", "--target", "out"]
    assert _run([*measured, "--sample", "10", "--keep", "output"]) == 0
    printed = capsys.readouterr().out
    assert "10 rows, 97 target tokens" in printed
    assert printed.endswith(f"{out}\n")
    numbers = json.loads((out / "quantization.json").read_text())
    assert [one["name"] for one in numbers["costs"]][:2] == ["float32", "int8 throughout"]
    page = (out / "report.html").read_text()
    assert "Product by product" in page and "encoder.layers.0.attention.query_key_value" in page
    assert _run(command) == 2
    assert "holds an earlier export: replace it with --overwrite" in capsys.readouterr().err
    assert _run([*command, "--overwrite"]) == 0
    assert not (out / "report.html").exists()
    assert _run(["generate", str(out), "--text", "ab", "--max-new-tokens", "4"]) == 0


def test_refusals(saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = saved("v1.0")
    out = tmp_path / "out"
    for options, message in (
        (
            {"keep": ["encoder.layer.0"]},
            "keep 'encoder.layer.0': the model has no such product; did you mean",
        ),
        ({"keep_above": 0.1}, "keep_above=0.1 needs a sample to measure on"),
        ({"dtype": "bfloat16", "keep": ["output"]}, "leave them out"),
        ({"sample": Sample([], [])}, "0 sources and 0 targets are no sample"),
        ({"sample": Sample(SOURCES)}, "these rows have no targets: name their column"),
    ):
        with pytest.raises(UserError, match=message):
            quantize(model, out, **options)
    quantize(model, out)
    with pytest.raises(UserError, match="is int8 already"):
        quantize(out, tmp_path / "again")
    (tmp_path / "electra").mkdir()
    (tmp_path / "electra" / "config.json").write_text(
        '{"model_type": "electra", "architectures": ["ElectraForMaskedLM"]}'
    )
    with pytest.raises(UserError, match="holds ElectraForMaskedLM, of which no predictions"):
        quantize(tmp_path / "electra", tmp_path / "again")
    assert (
        _run(["quantize", str(model), "--out", str(tmp_path / "x"), "--on", str(tmp_path / "no.jsonl")]) == 2
    )
    assert "no.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "again").exists() and not (tmp_path / "x").exists()


def test_a_failure_leaves_nothing(saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, directory: object) -> None:
        raise OSError("no room")

    model = saved("v1.0")
    monkeypatch.setattr(ByT5Tokenizer, "save_pretrained", fail)
    with pytest.raises(OSError, match="no room"):
        quantize(model, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
