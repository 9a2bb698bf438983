"""unmask: lists of ids in, logits out in their order; sorting and packing are its own affair."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from unmask.electra.heads import ElectraForSequenceClassification


def load(model: Path, precision: str, threads: int) -> Callable[[list[list[int]]], np.ndarray]:
    torch.set_num_threads(threads)
    loaded = ElectraForSequenceClassification.from_pretrained(model, dtype=precision)

    @torch.inference_mode()
    def classify(texts: list[list[int]]) -> np.ndarray:
        return loaded(input_ids=texts).logits.float().numpy()

    return classify
