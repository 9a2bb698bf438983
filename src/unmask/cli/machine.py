"""Where a command computes: the two options that every command with a model has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from unmask.errors import UserError

if TYPE_CHECKING:
    import torch


@Parameter(name="*")
@dataclass(frozen=True)
class Machine:
    """Where to compute.

    Attributes:
        device: auto takes the first of cuda, mps and cpu that is there.
        threads: CPU threads; default: one for each core this process may use.
    """

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: Annotated[int | None, Parameter(show_default=False)] = None

    def prepare(self) -> torch.device:
        """Set the thread count and return the device.

        Raises:
            UserError: the device asked for is not there, or fewer than 1 thread.
        """
        import torch

        if self.threads is not None:
            if self.threads < 1:
                raise UserError(f"--threads {self.threads}: it must be at least 1")
            torch.set_num_threads(self.threads)
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        if self.device == "auto":
            return torch.device(next(name for name, available in there.items() if available))
        if not there[self.device]:
            raise UserError(f"--device {self.device}: this machine has none that PyTorch can use; try auto")
        return torch.device(self.device)
