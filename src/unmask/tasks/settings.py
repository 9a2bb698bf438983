"""How to fine-tune. No torch here: the command line reads these types to print its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unmask.errors import UserError
from unmask.training.schedules import ScheduleName
from unmask.training.settings import LoopSettings, OptimiserName, Precision

#: How an ELECTRA writes: by filling masks, or with a decoder that starts from it.
ElectraWriting = Literal["masks", "encoder-decoder"]


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """Settings of a fine-tuning run.

    Attributes:
        epochs: passes over the training rows.
        batch_size: rows a step.
        optimiser: adamw, scaled-adamw (steps relative to each tensor's size), electra-adam (no bias
            correction), adafactor (T5's), or muon (experimental: for the layers' matrices, adamw for the rest).
        learning_rate: the schedule's peak.
        layer_decay: (ELECTRA) factor of the learning rate from each layer to the one below it; published: 0.8
            for small and base, 0.9 for large; 1: none.
        schedule: constant, linear, cosine, wsd, inverse-square-root or electra.
        warmup_share: share of the steps until the peak.
        weight_decay: decoupled; norms and biases are spared.
        clip_norm: largest gradient norm; 0: no clipping.
        precision: float32, bfloat16 (matrix products in it, over float32 weights), or auto: the faster here.
        seed: decides order, dropout and the new head.
        checkpoint_every: steps between checkpoints; 0: none, the run starts again when it is stopped.
        electra_writes_by: (ELECTRA, text-to-text) masks: a generator fills them and a discriminator judges;
            encoder-decoder: a decoder that starts from the same weights writes from left to right.
    """

    epochs: float = 3.0
    batch_size: int = 32
    optimiser: OptimiserName = "adamw"
    learning_rate: float = 3e-4
    layer_decay: float = 1.0
    schedule: ScheduleName = "linear"
    warmup_share: float = 0.1
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    precision: Precision = "auto"
    seed: int = 0
    checkpoint_every: int = 0
    electra_writes_by: ElectraWriting = "masks"

    def __post_init__(self) -> None:
        if not self.epochs > 0:
            raise UserError(f"epochs is {self.epochs}, it must be above 0")
        if self.batch_size < 1:
            raise UserError(f"batch_size is {self.batch_size}, it must be at least 1")
        if not self.learning_rate > 0:
            raise UserError(f"learning_rate is {self.learning_rate}, it must be above 0")
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"layer_decay is {self.layer_decay}, it must be above 0 and at most 1")
        if not 0 <= self.warmup_share <= 1:
            raise UserError(f"warmup_share is {self.warmup_share}, it must be between 0 and 1")
        if min(self.weight_decay, self.clip_norm, self.checkpoint_every) < 0:
            raise UserError("weight_decay, clip_norm and checkpoint_every must not be negative")

    def loop_settings(self, steps: int) -> LoopSettings:
        """What the loop reads, for this many steps."""
        return LoopSettings(
            steps=steps,
            seed=self.seed,
            optimiser=self.optimiser,
            learning_rate=self.learning_rate,
            layer_decay=self.layer_decay,
            schedule=self.schedule,
            warmup_steps=round(self.warmup_share * steps),
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            precision=self.precision,
            checkpoint_every=self.checkpoint_every,
        )
