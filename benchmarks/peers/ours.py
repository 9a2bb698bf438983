"""unmask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from unmask.t5.model import T5ForConditionalGeneration

Generate = Callable[[np.ndarray, int, int], np.ndarray]


def load(model: Path, precision: str, threads: int) -> Generate:
    torch.set_num_threads(threads)
    loaded = T5ForConditionalGeneration.from_pretrained(model, dtype=precision)

    def generate(ids: np.ndarray, new: int, beams: int) -> np.ndarray:
        options = {"num_beams": beams} if beams > 1 else {}
        return loaded.generate(torch.from_numpy(ids), max_new_tokens=new, **options)[:, 1:].numpy()

    return generate
