"""What the loop can be told. No torch here: the command line reads these types to print its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unmask.training.schedules import ScheduleName

Precision = Literal["auto", "float32", "bfloat16"]
#: How several processes share a model: each has all of it, or a part of every layer.
Parallel = Literal["ddp", "fsdp"]
OptimiserName = Literal["adamw", "scaled-adamw", "electra-adam", "adafactor", "muon"]


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a step's work is done; the result is the same up to rounding.

    Attributes:
        parallel: how several processes share the model.
        accumulate: passes in which each process makes its part of a step, for less memory.
        checkpoint_activations: layers keep their inputs alone and run again for their gradients, which are the same
            bits: less memory, more time.
        compile: what lies between two attentions is compiled by torch.compile, which needs a C++ compiler.
        deterministic: on a GPU too, the same bits whenever the run is repeated or continued; what that costs is
            measured at the start and said. On a CPU it is always so.
    """

    parallel: Parallel = "ddp"
    accumulate: int = 1
    checkpoint_activations: bool = False
    compile: bool = False
    deterministic: bool = False


#: One process, all at once.
PLAIN = Execution()


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How to train, whatever is trained.

    Attributes:
        steps: optimiser steps.
        learning_rate: the schedule's peak.
        clip_norm: the gradient's largest global norm; 0: no clipping.
        precision: bfloat16 runs matrix products in bfloat16 over float32 weights; auto: where that is faster.
        decay_share: of wsd, the share of the steps that decay; None: its default.
        final_factor: of linear, cosine and wsd, what is left of the peak at the end; None: 0.
        layer_decay: factor of the learning rate from each layer to the one below it, from the heads down; 1: none.
        ema_decay: of a moving average of the weights, which is evaluated and is the outcome; 0: none.
        average_checkpoints: the outcome is the mean of so many of the newest checkpoints' weights; 0: the last.
        max_skipped: steps in a row without a finite loss and gradient after which the run stops.
        checkpoint_every: steps between checkpoints; 0: none.
        keep_checkpoints: how many of the newest to keep.
        keep_every: checkpoints at multiples of so many steps are kept too; 0: none.
        evaluate_every: steps between evaluations, with one before the first step and one after the last;
            0: those two alone.
        judge: the value of an evaluation that is to be as high as can be: the weights that had the highest are the
            outcome, and there is no evaluation before the first step; None: the last weights are.
        patience: evaluations in a row without a new highest value of `judge` after which the run ends; 0: it never
            ends early.
        log_every: steps between lines of metrics.jsonl.
    """

    steps: int
    seed: int = 0
    optimiser: OptimiserName = "adamw"
    learning_rate: float
    schedule: ScheduleName = "linear"
    warmup_steps: int = 0
    decay_share: float | None = None
    final_factor: float | None = None
    layer_decay: float = 1.0
    ema_decay: float = 0.0
    average_checkpoints: int = 0
    max_skipped: int = 10
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    precision: Precision = "float32"
    checkpoint_every: int = 0
    keep_checkpoints: int = 2
    keep_every: int = 0
    evaluate_every: int = 0
    judge: str | None = None
    patience: int = 0
    log_every: int = 10
