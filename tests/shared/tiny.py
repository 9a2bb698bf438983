"""Tiny ELECTRAs that tests of several rooms make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from unmask.electra.config import ElectraConfig
from unmask.electra.model import ElectraBackbone
from unmask.electra.tokenizer import ElectraTokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def electra_config(vocab_size: int, *, width: int = 16, layers: int = 1, **changes: Any) -> ElectraConfig:
    """Two heads; embeddings as wide as the layers, feed-forwards twice as wide, but for what is changed."""
    sizes = {
        "embedding_size": width,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 2 * width,
    }
    return ElectraConfig(vocab_size=vocab_size, **(sizes | changes))


def save_electra(place: Path, kind: type[ElectraBackbone], words: list[str], **changes: Any) -> Path:
    """A random model of a few words, of width 8, and its tokenizer."""
    torch.manual_seed(0)
    vocabulary = [*SPECIAL, *words]
    kind(electra_config(len(vocabulary), width=8, **({"intermediate_size": 8} | changes))).save_pretrained(
        place
    )
    (place / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    ElectraTokenizer.from_pretrained(place).save_pretrained(place)
    return place
