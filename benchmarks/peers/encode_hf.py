"""Transformers in padded batches. Precision: "float32 padded", "float32 sorted", "bfloat16 sorted"."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from encode_padded import in_batches


def load(model: Path, precision: str, threads: int) -> Callable[[list[list[int]]], np.ndarray]:
    torch.set_num_threads(threads)
    kind, order = precision.split()
    loaded = transformers.ElectraForSequenceClassification.from_pretrained(model, dtype=getattr(torch, kind))
    loaded.eval()

    @torch.inference_mode()
    def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        out = loaded(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        return out.logits.float().numpy()

    return in_batches(forward, by_length=order == "sorted")
