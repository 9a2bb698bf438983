"""ONNX Runtime computes what we compute: T5 in two graphs with a past, ELECTRA with each of its heads."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unmask.cli import _run
from unmask.electra.config import ElectraConfig
from unmask.electra.heads import ELECTRAS
from unmask.electra.model import ElectraBackbone, ElectraForPreTraining
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import MissingExtraError, UserError
from unmask.export import onnx as onnx_export
from unmask.export.onnx import RECORD, export
from unmask.export.onnx_check import TOLERANCE, OnnxT5, session
from unmask.report.card import CARD
from unmask.t5.byte_tokenizer import ByT5Tokenizer
from unmask.t5.config import T5Config
from unmask.t5.heads import T5ForQuestionAnswering, T5ForSequenceClassification, T5ForTokenClassification
from unmask.t5.model import T5Backbone, T5EncoderModel, T5ForConditionalGeneration

pytest.importorskip("onnx", reason="needs the extra export")
pytest.importorskip("onnxruntime", reason="needs the extra export")

Saved = Callable[[str], Path]


@pytest.fixture(scope="module")
def wordpieces() -> ElectraTokenizer:
    return ElectraTokenizer.train(["the river rose, by morning the bridge was under water"] * 3, 120)


def saved_electra(kind: type[ElectraBackbone], tokenizer: ElectraTokenizer, directory: Path) -> Path:
    torch.manual_seed(0)
    sizes = {"embedding_size": 16, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2}
    config = ElectraConfig(vocab_size=tokenizer.vocab_size, labels=("a", "b", "c"), **sizes)  # type: ignore[arg-type]
    model = kind(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("variant", ["v1.0", "v1.1", "umT5"])
def test_t5_after_pasts_of_any_length(variant: str, saved: Saved, tmp_path: Path) -> None:
    directory = saved(variant)
    found = export(directory, tmp_path / "onnx")
    assert found.float32.largest < TOLERANCE and found.float32.same == 1.0 and found.int8 is None
    model = T5ForConditionalGeneration.from_pretrained(directory)
    # Further apart than the largest distance with a bucket of its own, and sizes that no example had.
    ids, mask = torch.randint(3, 279, (3, 150)), torch.ones(3, 150, dtype=torch.int64)
    mask[0, 70:], mask[1, 149:] = 0, 0
    targets = torch.randint(3, 279, (3, 140))
    with torch.no_grad():
        exact = model(ids, mask, decoder_input_ids=targets).logits.numpy()
    engine = OnnxT5(tmp_path / "onnx", model.config.decoder_layers)
    source = engine.encode(ids.numpy(), mask.numpy())
    past, parts = None, []
    for part in np.split(targets.numpy(), [1, 2, 9, 130], 1):
        logits, past = engine.step(part, source, past)
        parts.append(logits)
    np.testing.assert_allclose(np.concatenate(parts, 1), exact, atol=TOLERANCE * np.abs(exact).max())


@pytest.mark.parametrize("kind", ELECTRAS.values())
def test_electra_with_its_head(
    kind: type[ElectraBackbone], wordpieces: ElectraTokenizer, tmp_path: Path
) -> None:
    directory = saved_electra(kind, wordpieces, tmp_path / "model")
    found = export(directory, tmp_path / "onnx")
    assert found.architecture == kind.architecture
    assert found.float32.largest < TOLERANCE and found.float32.same in (None, 1.0)
    if kind is ElectraForPreTraining:
        model = kind.from_pretrained(directory)
        ids = torch.randint(5, 120, (1, 40))
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": ids % 2}
        with torch.no_grad():
            exact = model(**given).logits.numpy()
        (made,) = session(tmp_path / "onnx" / "model.onnx").run(
            None, {k: v.numpy() for k, v in given.items()}
        )
        np.testing.assert_allclose(made, exact, atol=1e-5)
    again = ElectraTokenizer.from_pretrained(tmp_path / "onnx")
    assert again.encode("the bridge") == wordpieces.encode("the bridge")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (T5EncoderModel, {}),
        (T5ForSequenceClassification, {"labels": ("a", "b", "c")}),
        # A table a layer, and a name of its own on disk.
        (T5ForTokenClassification, {"labels": ("a", "b", "c"), "model_type": "umt5"}),
        (T5ForQuestionAnswering, {"feed_forward_proj": "gated-gelu"}),
    ],
)
def test_t5_with_a_head(kind: type[T5Backbone], settings: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = T5Config(vocab_size=300, d_model=16, d_ff=24, d_kv=8, num_layers=2, num_heads=2, **settings)
    model = kind(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path / "model")
    ByT5Tokenizer(extra_ids=20).save_pretrained(tmp_path / "model")
    found = export(tmp_path / "model", tmp_path / "onnx")
    assert found.float32.largest < TOLERANCE and found.float32.same in (None, 1.0)
    assert found.files == ["model.onnx"]
    # Sizes that no example had; distances beyond the table's reach; a text with two ends.
    ids, mask = torch.randint(3, 250, (3, 150)), torch.ones(3, 150, dtype=torch.int64)
    ids[0, 40], ids[:, -1] = 1, 1
    ids[1, 60], mask[1, 61:] = 1, 0
    ids[1, 61:] = 0
    with torch.no_grad():
        exact = model(ids, mask)
    graph = session(tmp_path / "onnx" / "model.onnx")
    for output in graph.get_outputs():
        (made,) = graph.run([output.name], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        wanted = getattr(exact, output.name).numpy()
        seen = mask.numpy() != 0
        pair = (made[seen], wanted[seen]) if wanted.shape[:2] == seen.shape else (made, wanted)
        np.testing.assert_allclose(*pair, atol=TOLERANCE * np.abs(pair[1]).max())


def test_int8_is_smaller_and_its_change_is_said(
    saved: Saved, tmp_path: Path, use_of: Callable[[Path], None]
) -> None:
    directory = saved("v1.1")
    wide = tmp_path / "float32"
    export(directory, wide)
    found = export(directory, tmp_path / "int8", dtype="int8")
    assert found.int8 is not None and 1e-4 < found.int8.change < 0.2
    for name in found.files:
        assert (tmp_path / "int8" / name).stat().st_size < 0.6 * (wide / name).stat().st_size
    card = (tmp_path / "int8" / CARD).read_text()
    assert "library_name: onnx" in card and f"| int8 | {found.int8.summary()} |" in card
    use_of(tmp_path / "int8")
    record = json.loads((tmp_path / "int8" / RECORD).read_text())
    assert record["int8"]["change"] == found.int8.change and record["files"] == [
        "decoder.onnx",
        "encoder.onnx",
    ]
    assert "int8: logits" in found.summary()


def test_what_one_file_cannot_hold_lies_beside_it(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "FILE_LIMIT", 100_000)
    directory = saved("v1.0")
    for dtype in ("float32", "int8"):
        found = export(directory, tmp_path / dtype, dtype=dtype)  # type: ignore[arg-type]
        files = ["decoder.onnx", "decoder.onnx.data", "encoder.onnx", "encoder.onnx.data"]
        assert found.files == files == sorted(path.name for path in (tmp_path / dtype).glob("*.onnx*"))
        for name in files[::2]:
            assert (tmp_path / dtype / name).stat().st_size < 100_000
            assert (tmp_path / dtype / f"{name}.data").stat().st_size > 20_000
    # In its place too, not where it was checked alone.
    shutil.move(tmp_path / "float32", tmp_path / "moved")
    OnnxT5(tmp_path / "moved", 2)


def test_a_graph_that_computes_something_else_is_not_written(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = onnx_export.t5_graphs

    def wrong(model: T5ForConditionalGeneration) -> list[object]:
        made = graphs(model)
        with torch.no_grad():
            made[1].module.biases.table_0.add_(0.5 * torch.randn_like(made[1].module.biases.table_0))  # type: ignore[union-attr, operator, arg-type]
        return list(made)

    monkeypatch.setattr(onnx_export, "t5_graphs", wrong)
    with pytest.raises(UserError, match=r"differs from PyTorch by .* nothing was written"):
        export(saved("v1.0"), tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_refusals(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = saved("v1.0")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match="something else than an earlier export"):
        export(directory, taken, overwrite=True)
    config = json.loads((directory / "config.json").read_text())
    (tmp_path / "bart").mkdir()
    (tmp_path / "bart" / "config.json").write_text(json.dumps(config | {"model_type": "bart"}))
    with pytest.raises(UserError, match=r"\(T5ForConditionalGeneration\): ONNX is written of T5 and of Ele"):
        export(tmp_path / "bart", tmp_path / "onnx")
    assert _run(["export", "onnx", str(directory), "--out", str(tmp_path / "onnx")]) == 0
    assert "float32: logits of 4 texts" in capsys.readouterr().out
    assert _run(["export", "onnx", str(directory), "--out", str(tmp_path / "onnx")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"unmask\[export\]"):
        export(directory, tmp_path / "other")
