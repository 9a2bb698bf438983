"""Small ELECTRAs with random weights, as Transformers makes and writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

SIZES = {
    "vocab_size": 40,
    "embedding_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}


@pytest.fixture
def reference() -> Callable[..., Any]:
    """reference("ElectraForMaskedLM", embedding_size=16, …): Transformers' model, every weight at work."""

    def make(architecture: str, **changes: Any) -> Any:
        config = transformers.ElectraConfig(**(SIZES | changes))
        model = getattr(transformers, architecture)(config)
        # Transformers starts biases at 0 and norms at 1, where a mistake would not show.
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
        return model.eval()

    torch.manual_seed(0)
    return make


@pytest.fixture
def saved(reference: Callable[..., Any], tmp_path: Path) -> Callable[..., tuple[Any, Path]]:
    """The same, and the directory that Transformers wrote it to."""

    def make(architecture: str, **changes: Any) -> tuple[Any, Path]:
        model = reference(architecture, **changes)
        directory = tmp_path / architecture
        model.save_pretrained(directory)
        return model, directory

    return make
