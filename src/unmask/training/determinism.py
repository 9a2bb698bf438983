"""The same bits on a GPU too: operations with one order of their sums, and what they cost."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

logger = logging.getLogger("unmask")

#: What cuBLAS needs for it (https://docs.nvidia.com/cuda/cublas/#results-reproducibility), before it is first used.
WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
#: How often the passes are made in either way, the first without being timed.
ROUNDS = 4


def prepare_determinism() -> None:
    """Called before the first product on a GPU."""
    os.environ.setdefault(*WORKSPACE)


@contextmanager
def deterministic_operations(device: torch.device, passes: Callable[[], object]) -> Iterator[None]:
    """Inside the block PyTorch's operations give the same bits whenever they are repeated, or raise an error.

    On a GPU it says what that costs. On a CPU there is nothing to do, and it says so: every run is the same there.

    Args:
        passes: the passes of a step, there and back, which change nothing that lasts.
    """
    if device.type != "cuda":
        logger.warning("--deterministic: on this device every run is; nothing is changed")
        yield
        return
    plain = _seconds(device, passes)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        longer = _seconds(device, passes) / plain
        logger.warning("--deterministic: a step's passes take %.2f times as long", longer)
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _seconds(device: torch.device, passes: Callable[[], object]) -> float:
    """Of the passes, the best of some."""
    best = float("inf")
    for number in range(ROUNDS):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        passes()
        torch.cuda.synchronize(device)
        if number:
            best = min(best, time.perf_counter() - start)
    return best
