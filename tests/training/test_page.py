"""A run's page: its curves, samples, troubles and settings, the same bytes for the same log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from unmask.data.shards import Shards
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.training.metrics import read_metrics
from unmask.training.page import write_run_page
from unmask.training.pretraining import pretrain
from unmask.training.recipe import PretrainRecipe

MACHINE = {"tokens_per_second": 1000.0, "flops_per_second": 2e9, "share_of_peak": 0.25, "memory_mib": 300.0}


def _lines(last: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"step": 0, "kind": "evaluation", "loss": 5.0, "loss/books": 5.5},
        {"step": 1, "kind": "training", "loss": 4.0, "learning_rate": 0.1, **MACHINE},
        {"step": 2, "kind": "skipped", "message": "layer <7>", "in_a_row": 1},
        {"step": 3, "kind": "training", "loss": 3.0, "learning_rate": 0.05, **MACHINE},
        {"step": 3, "kind": "evaluation", "loss": 3.5, "loss/books": 4.5},
        {"step": 3, "kind": "sample", "text": "…", **last},
    ]


def _written(path: Path, last: dict[str, Any]) -> str:
    write_run_page(path, _lines(last), {"family": "t5", "steps": 3, "seed": None}, {"parameters": "12"})
    return path.read_text(encoding="utf-8")


def test_of_a_t5(tmp_path: Path) -> None:
    sample = {"input": "a <extra_id_0> c", "output": "<extra_id_0> b", "wanted": "<extra_id_0> bb"}
    page = _written(tmp_path / "a.html", sample)
    assert page == _written(tmp_path / "b.html", sample)
    for text in ("held-out: books", "held-out loss", "3.5000", "25%", "300 MiB", "layer &lt;7&gt;"):
        assert text in page
    assert "step 3: a &lt;extra_id_0&gt; c" in page
    assert ">seed<" not in page


def test_of_an_electra(tmp_path: Path) -> None:
    sample = {"tokens": ["a", "b"], "suspicion": [0.1, 0.9], "replaced": {"1": "x"}}
    assert "x→b" in _written(tmp_path / "a.html", sample)


@pytest.mark.usefixtures("pages")
def test_a_run_ends_with_one(shards: Shards, tokenizer: ElectraTokenizer, tmp_path: Path) -> None:
    recipe = PretrainRecipe(
        family="electra",
        vocab_size=140,
        layers=1,
        width=16,
        heads=2,
        feed_forward_width=32,
        length=32,
        batch_size=8,
        steps=2,
        learning_rate=0.01,
        log_every=1,
        precision="float32",
    )
    pretrain(recipe, shards, tokenizer, tmp_path, device=torch.device("cpu"))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    lines = read_metrics(tmp_path / "metrics.jsonl")
    (first, last) = [line for line in lines if line["kind"] == "sample"]
    assert first["tokens"] != last["tokens"] or first["suspicion"] != last["suspicion"]
    assert len(first["tokens"]) == len(first["suspicion"])
    assert "probability that the token was replaced" in page
    assert all(line["share_of_peak"] > 0 for line in lines if line["kind"] == "training")
