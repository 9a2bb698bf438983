"""In which type a run multiplies matrices, where that is left to the machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import torch

from unmask import hub
from unmask.errors import UserError
from unmask.training.settings import Precision

Chosen = Literal["float32", "bfloat16"]

#: Where a run keeps what was chosen: it goes on in the same type, whatever the machine is busy with then.
FILE = "precision.json"
#: How much faster bfloat16's products must be on a CPU: around them values are converted.
WORTHWHILE = 1.25
#: A product of a small model's feed-forward, (rows, width) by (width, feed-forward), takes about a millisecond.
ROWS, WIDTH, FEED_FORWARD = 1024, 256, 1024
ROUNDS = 7


def choose_precision(wanted: Precision, device: torch.device, directory: Path) -> Chosen:
    """The type of a run's products: the wanted one, or for "auto" what the device does faster.

    Processors with matrix units multiply bfloat16 several times as fast as float32; others convert it first and take
    twice as long. Flags do not tell the two apart reliably, so both are timed, once for a run.

    Args:
        directory: the run's; holds the choice afterwards.

    Raises:
        UserError: the run's file holds something else.
    """
    if wanted != "auto":
        return wanted
    path = directory / FILE
    if path.is_file():
        kept = hub.read_json(path).get("precision")
        if kept not in ("float32", "bfloat16"):
            raise UserError(f"{path} says precision {kept!r}: delete the file to choose again")
        return "float32" if kept == "float32" else "bfloat16"
    chosen: Chosen = "bfloat16" if is_bfloat16_faster(device) else "float32"
    hub.write_json(path, {"precision": chosen})
    return chosen


def is_bfloat16_faster(device: torch.device) -> bool:
    """Whether the device's products are, on a CPU by a measurement."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    return _seconds(torch.float32) > WORTHWHILE * _seconds(torch.bfloat16)


def _seconds(kind: torch.dtype) -> float:
    """Of one product, the best of some."""
    rows, weight = torch.ones(ROWS, WIDTH, dtype=kind), torch.ones(FEED_FORWARD, WIDTH, dtype=kind)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(ROUNDS):
            start = time.perf_counter()
            torch.nn.functional.linear(rows, weight)
            best = min(best, time.perf_counter() - start)
    return best
