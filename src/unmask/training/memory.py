"""What a training step holds in memory: by reckoning, and as it was measured."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from unmask.training.settings import OptimiserName

#: Bytes that an optimiser keeps for each number of a trained tensor: two moments in float32.
_ADAM = 8


@dataclass(frozen=True)
class State:
    """What a run holds whatever its batch, in bytes.

    Attributes:
        weights: all of them, float32.
        gradients: of the trained ones.
        optimiser: its moments.
        average: a moving average of the weights.
        copy: of what a checkpoint holds, while it is written.
    """

    weights: int
    gradients: int
    optimiser: int
    average: int
    copy: int = 0

    @property
    def total(self) -> int:
        """Between checkpoints."""
        return self.weights + self.gradients + self.optimiser + self.average

    @property
    def checkpoint(self) -> int:
        """What one checkpoint takes on the disk."""
        return self.weights + self.optimiser + self.average


def state_of(model: nn.Module, optimiser: OptimiserName, *, with_average: bool) -> State:
    """Of a model, which may be on the meta device."""
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    weights = sum(parameter.numel() for parameter in model.parameters()) * 4
    trained_bytes = sum(parameter.numel() for parameter in trained.values()) * 4
    return State(
        weights,
        trained_bytes,
        sum(_moments(name, parameter, optimiser) for name, parameter in trained.items()),
        trained_bytes if with_average else 0,
    )


def _moments(name: str, parameter: Tensor, optimiser: OptimiserName) -> int:
    count = parameter.numel()
    if optimiser == "adafactor":
        factored = parameter.dim() > 1 and min(parameter.shape[-2:]) >= 128
        return 4 * (count // parameter.shape[-1] + count // parameter.shape[-2]) if factored else 4 * count
    if optimiser == "muon" and parameter.dim() == 2 and ".layers." in f".{name}":
        return 4 * count
    return _ADAM * count


class Kept:
    """The bytes that a forward pass keeps for the backward one, each storage once, weights left out."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self.bytes = 0
        self._seen = {weight.untyped_storage().data_ptr() for weight in weights}

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is kept inside the block."""

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._seen:
                self._seen.add(storage.data_ptr())
                self.bytes += storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            yield


class Peak:
    """The most memory that is held while something runs, beyond what was held before.

    On a GPU that of tensors; elsewhere the process' (Linux; 0 where the system does not say).
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
        elif _STATUS.is_file():
            # The high-water mark starts anew.
            Path("/proc/self/clear_refs").write_text("5")
            self._before = _resident("VmRSS")

    def bytes(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._before
        return _resident("VmHWM") - self._before if _STATUS.is_file() else 0


_STATUS = Path("/proc/self/status")


def _resident(name: str) -> int:
    lines = _STATUS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def available(device: torch.device) -> int:
    """Bytes that can still be had: of the GPU, else of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
