"""Random T5s made by Transformers, the reference that every test of this room agrees with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

Reference = Callable[..., Any]

#: Variant → (Transformers' class prefix, its config's values, output matrix of its own).
VARIANTS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "v1.0": ("T5", {"feed_forward_proj": "relu"}, False),
    # LM-adapted T5 and FLAN-T5 have this shape too.
    "v1.1": ("T5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, True),
    # ByT5: three times as deep an encoder, bytes and their sentinels as vocabulary.
    "ByT5": (
        "T5",
        {
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
            "num_layers": 3,
            "num_decoder_layers": 1,
            "vocab_size": 384,
        },
        True,
    ),
    "UL2": ("T5", {"feed_forward_proj": "gated-silu", "tie_word_embeddings": False, "d_kv": 12}, True),
    "mT5": ("MT5", {}, True),
    "umT5": ("UMT5", {}, True),
}


def randomise(model: Any) -> None:
    """Weights that leave nothing untested: no norm of ones, no bias near zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
            elif "relative_attention_bias" in name:
                parameter.normal_()
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)


def build(variant: str, head: str = "ForConditionalGeneration", **changes: Any) -> Any:
    prefix, values, separate_output = VARIANTS[variant]
    values = {
        "vocab_size": 61,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 3,
        "decoder_start_token_id": 0,
        **values,
        **changes,
    }
    torch.manual_seed(7)
    config = getattr(transformers, f"{prefix}Config")(**values)
    model = getattr(transformers, f"{prefix}{head}")(config).eval()
    randomise(model)
    if separate_output and head == "ForConditionalGeneration":
        # Transformers 5 ties whatever the config says; a matrix of its own stays one on disk.
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight) * 0.2)
    return model


@pytest.fixture(scope="session")
def reference() -> Reference:
    """reference(variant, head="ForConditionalGeneration", **config values) → a model in inference mode."""
    return build


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Any], Path]:
    """saved(model) → the directory that its own library wrote it to."""

    def save(model: Any) -> Path:
        directory = tmp_path / "model"
        model.save_pretrained(directory)
        return directory

    return save
