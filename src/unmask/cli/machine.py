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
            return _own(next(name for name, available in there.items() if available))
        if not there[self.device]:
            raise UserError(f"--device {self.device}: this machine has none that PyTorch can use; try auto")
        return _own(self.device)


def _own(kind: str) -> torch.device:
    """This process' device of a kind: under torchrun each on a machine has one."""
    import torch

    from unmask.training.ranks import is_launched, local_number

    if kind != "cuda" or not is_launched():
        return torch.device(kind)
    if local_number() >= torch.cuda.device_count():
        raise UserError(
            f"process {local_number()} on this machine has no GPU of its own, there are {torch.cuda.device_count()}: "
            "give torchrun a lower --nproc-per-node"
        )
    torch.cuda.set_device(local_number())
    return torch.device("cuda", local_number())
