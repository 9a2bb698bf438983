"""How the processes that torchrun starts share a training command's work."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from unmask.errors import UserError
from unmask.training.settings import Execution, OptimiserName, Parallel

if TYPE_CHECKING:
    import torch

    from unmask.training.ranks import Ranks


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Processes(Execution):
    """How a step's work is done; the result is the same up to rounding, so a run may be continued with others.

    Attributes:
        parallel: (under torchrun) ddp: each process has the whole model; fsdp: each has a part of every layer, for
            models that do not fit otherwise.
        accumulate: passes in which each process makes its part of a step, for batches that do not fit at once.
        checkpoint_activations: layers keep their inputs alone and run again for their gradients, which are the same
            bits: less memory, more time.
        compile: what lies between two attentions is compiled by torch.compile, which needs a C++ compiler.
        deterministic: on a GPU too, the same bits whenever the run is repeated or continued; what that costs is
            measured at the start and said. On a CPU it is always so.
    """

    # Once more, as their types are looked up here.
    parallel: Parallel = "ddp"
    accumulate: int = 1
    checkpoint_activations: Annotated[bool, Parameter(negative="")] = False
    compile: Annotated[bool, Parameter(negative="")] = False
    deterministic: Annotated[bool, Parameter(negative="")] = False

    def check(self, optimiser: OptimiserName, device: torch.device) -> None:
        """Raises:
        UserError: settings that mean nothing, an optimiser that cannot run so, or no compiler where one is needed.
        """
        from unmask.training.compiling import check_compiler
        from unmask.training.determinism import prepare_determinism
        from unmask.training.parallel import check_parallel
        from unmask.training.ranks import is_launched

        if self.accumulate < 1:
            raise UserError(f"--accumulate {self.accumulate}: it must be at least 1")
        if self.parallel == "fsdp" and not is_launched():
            raise UserError(
                "--parallel fsdp needs several processes: torchrun --nproc-per-node N -m unmask …"
            )
        check_parallel(self.parallel, optimiser)
        if self.compile:
            check_compiler(device)
        if self.deterministic:
            prepare_determinism()

    @contextmanager
    def join(self) -> Iterator[Ranks]:
        """The ranks of the command, of which the first alone speaks."""
        from unmask.training.ranks import joined_ranks

        with joined_ranks() as ranks:
            if not ranks.is_first:
                logging.getLogger("unmask").setLevel(logging.CRITICAL)
            yield ranks
