"""One training step on a batch, the same around every engine's loss: AdamW, clipped gradients, autocast."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

#: Streams of a batch by name, int64.
Batch = dict[str, Tensor]


def make_runner(
    models: Sequence[nn.Module],
    loss_of: Callable[[Batch], Tensor],
    losses_of: Callable[[Batch], Iterable[Tensor]],
    work: str,
) -> Callable[[dict[str, np.ndarray], bool], list[float]]:
    """A function from a batch to nothing, after one step; or, asked to check, to the losses and the memory of one.

    Args:
        models: what is trained; parameters that several hold count once.
        loss_of: what a step minimises.
        losses_of: losses without dropout and without sampling, to compare between engines.
        work: "float32" or "bfloat16", which is autocast over float32 weights; with "cuda" on a GPU.
    """
    device = device_of(work)
    for model in models:
        model.to(device)
    parameters = list({id(p): p for model in models for p in model.parameters()}.values())
    optimiser = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled="float32" not in work.split())

    def step(batch: Batch) -> None:
        with autocast:
            loss = loss_of(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    def check(batch: Batch) -> list[float]:
        for model in models:
            model.eval()
        with torch.no_grad(), autocast:
            losses = [float(loss) for loss in losses_of(batch)]
        for model in models:
            model.train()
        step(batch)  # makes the optimiser's state
        gradients = sum(parameter.nbytes for parameter in parameters)
        return [*losses, _peak_of(lambda: step(batch), device) - gradients]

    def run(arrays: dict[str, np.ndarray], checking: bool) -> list[float]:
        batch = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        if checking:
            return check(batch)
        step(batch)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return []

    for model in models:
        model.train()
    return run


def device_of(work: str) -> torch.device:
    return torch.device("cuda" if "cuda" in work.split() else "cpu")


def _peak_of(work: Callable[[], None], device: torch.device) -> float:
    """Bytes of memory while it works, beyond those before: tensors' on a GPU, elsewhere what is resident (Linux)."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - held
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    work()
    return _resident("VmHWM") - before


def _resident(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(name))
