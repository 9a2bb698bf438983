"""Small T5s with random weights that write texts of unlike lengths."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unmask.report.card import CARD
from unmask.t5.byte_tokenizer import ByT5Tokenizer
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration

SHAPE = {"vocab_size": 300, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 3}
VARIANTS: dict[str, dict[str, Any]] = {
    "v1.0": {},
    "v1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 1},
    "UL2": {"feed_forward_proj": "gated-silu", "tie_word_embeddings": False, "layer_norm_epsilon": 0.01},
    "mT5": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": True, "model_type": "mt5"},
    "umT5": {"feed_forward_proj": "gated-gelu", "model_type": "umt5", "relative_attention_max_distance": 40},
}


def build(variant: str) -> T5ForConditionalGeneration:
    torch.manual_seed(3)
    made = T5ForConditionalGeneration(T5Config(**(SHAPE | VARIANTS[variant]))).eval()
    # Sizes found by trying: what is written then differs from text to text and ends at different steps.
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif "table" in name:
                parameter.normal_()
            elif name == "embedding.weight":
                parameter.mul_(0.1 if made.config.scale_decoder_outputs else 0.3)
            elif "attention" in name and made.output is None:
                parameter.mul_(3)
        (made.embedding if made.output is None else made.output).weight[1] *= 3
    return made


@pytest.fixture
def use_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """use_of(export): runs what its card says how to use it, where the export lies."""

    def run(export: Path) -> None:
        monkeypatch.chdir(export.parent)
        (code,) = re.findall(r"^```python\n(.*?)^```", (export / CARD).read_text(), re.S | re.M)
        exec(code, {})

    return run


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[str], Path]:
    """saved(variant) → a model directory with a tokenizer of bytes."""

    def save(variant: str) -> Path:
        directory = tmp_path / "model"
        build(variant).save_pretrained(directory)
        ByT5Tokenizer(extra_ids=20).save_pretrained(directory)
        return directory

    return save
