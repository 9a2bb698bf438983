"""What a pre-training run is, whatever family it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from unmask.data.stream import EvaluationBatches
from unmask.nn.sums import Sums
from unmask.training.health import Diagnose
from unmask.training.loop import Batch, Loss, LossOf
from unmask.training.watching import Sample


@dataclass(frozen=True)
class Pretraining:
    """What differs between the families.

    Attributes:
        model: everything that is trained, or that a checkpoint has to hold.
        batches: random access: `batches[k]` is batch k.
        loss_of: see `loop.LossOf`.
        held_out: each corpus' batches to measure on, by name.
        measure: (a held-out batch, or a part of it; the batch's number) → what was measured.
        save: writes the finished model into a directory.
        flops: batch → floating-point operations of a step on it.
        sample: what the model does with a held-out text; None: nothing is shown.
        diagnose: what ails the run, from its log; None: nothing is looked for.
    """

    model: nn.Module
    batches: Any
    loss_of: LossOf
    held_out: Mapping[str, EvaluationBatches]
    measure: Callable[[Batch, int], Sums]
    save: Callable[[Path], None]
    flops: Callable[[Batch], int]
    sample: Callable[[], Sample] | None = None
    diagnose: Diagnose | None = None

    def loss(self, step: int) -> Loss:
        """Of the whole batch of a step."""
        batch = self.batches[step]
        return self.loss_of(batch, step, batch)
