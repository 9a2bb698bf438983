"""How hard the machine works while it trains: tokens and operations a second, the share of what it can, memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

#: Square products that are timed: the fastest says what the machine can.
SIZES = {"cpu": (1024, 1536), "cuda": (4096, 8192), "mps": (2048, 4096)}
ROUNDS = 3

#: What a meter reads, which no two runs have alike.
MEASURED = ("tokens_per_second", "flops_per_second", "share_of_peak", "memory_mib")


class Meter:
    """What was done since it was last read, by the time in which it ran.

    Args:
        processes: that do it together, each with a device, or threads, of its own.
    """

    def __init__(self, device: torch.device, precision: str, processes: int = 1) -> None:
        self._device = device
        self._precision = precision
        self._processes = processes
        self._tokens = self._flops = 0
        self._seconds = 0.0
        self._since = time.perf_counter()

    def add(self, tokens: int, flops: int | None) -> None:
        """So much was done; flops None: nobody knows."""
        self._tokens += tokens
        self._flops += flops or 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What runs inside the block is no training."""
        self._seconds += time.perf_counter() - self._since
        try:
            yield
        finally:
            self._since = time.perf_counter()

    def read(self) -> dict[str, float]:
        """Values for a log, and begin anew.

        - tokens_per_second.
        - flops_per_second: of the matrix products (`unmask.t5.flops`, `unmask.electra.flops`), where they are known.
        - share_of_peak: of that, in the fastest product of this type that was timed here, times the processes.
        - memory_mib: the most that was ever held: on a GPU by tensors, elsewhere by the process.
        """
        seconds = max(1e-9, self._seconds + time.perf_counter() - self._since)
        values = {"tokens_per_second": self._tokens / seconds}
        if self._flops:
            rate = self._flops / seconds
            peak = matrix_peak(self._device.type, self._precision) * self._processes
            values |= {"flops_per_second": rate, "share_of_peak": rate / peak}
        self._tokens = self._flops = 0
        self._seconds, self._since = 0.0, time.perf_counter()
        return values | {"memory_mib": peak_memory(self._device) / 2**20}


def peak_memory(device: torch.device) -> float:
    """The most bytes that were held since the process began: on a GPU by tensors, elsewhere by the process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    if device.type == "mps":
        return float(torch.mps.driver_allocated_memory())
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most if sys.platform == "darwin" else most * 1024)


@cache
def matrix_peak(device: str, precision: str) -> float:
    """Operations a second of the fastest of some square matrix products, timed once in a process.

    Args:
        device: a type of device.
        precision: float32, or anything else for bfloat16.
    """
    kind = torch.float32 if precision == "float32" else torch.bfloat16
    best = 0.0
    with torch.inference_mode():
        for size in SIZES.get(device, SIZES["cpu"]):
            a = torch.ones(size, size, dtype=kind, device=device)
            b = a.clone()
            for _ in range(ROUNDS):
                start = time.perf_counter()
                a @ b
                _wait(device)
                best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def in_words(values: dict[str, float]) -> str:
    """What a meter read, for a progress line."""
    rate = values["tokens_per_second"]
    parts = [f"{rate:,.{0 if rate >= 10 else 2}f} tokens/s"]
    if "flops_per_second" in values:
        parts.append(
            f"{with_prefix(values['flops_per_second'])}FLOP/s ({values['share_of_peak']:.0%} of the peak)"
        )
    return "  ".join([*parts, f"{values['memory_mib']:,.0f} MiB"])


def with_prefix(value: float) -> str:
    """1,230,000,000 → "1.23 G"."""
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if value < 999.5 or prefix == "E":
            break
        value /= 1000
    return f"{value:.3g} {prefix}" if value < 999.5 else f"{value:,.0f} {prefix}"
