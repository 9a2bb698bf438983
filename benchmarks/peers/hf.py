"""Transformers, as its documentation says to use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers


def load(model: Path, precision: str, threads: int) -> Callable[[np.ndarray, int, int], np.ndarray]:
    torch.set_num_threads(threads)
    options = {"dtype": torch.bfloat16} if precision == "bfloat16" else {"attn_implementation": precision}
    loaded = transformers.T5ForConditionalGeneration.from_pretrained(model, **options).eval()

    @torch.inference_mode()
    def generate(ids: np.ndarray, new: int, beams: int) -> np.ndarray:
        written = loaded.generate(
            torch.from_numpy(ids),
            attention_mask=torch.ones(ids.shape, dtype=torch.int64),
            max_new_tokens=new,
            num_beams=beams,
            do_sample=False,
        )
        return written[:, 1:].numpy()

    return generate
