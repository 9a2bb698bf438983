"""A few steps of a run, measured: before the run, on the machine that will make it."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unmask.electra.tokenizer import ElectraTokenizer
from unmask.t5.byte_tokenizer import AnyT5Tokenizer
from unmask.training.corpora import Data
from unmask.training.loop import Loss, train
from unmask.training.memory import Kept, Peak
from unmask.training.meter import matrix_peak
from unmask.training.precision import choose_precision
from unmask.training.pretraining import pretraining_of
from unmask.training.recipe import PretrainRecipe
from unmask.training.settings import PLAIN, Execution

#: Steps that are not timed: kernels are chosen and compiled, the optimiser's moments are made.
START_UP = 2
#: At least so many are timed, and for at least so many seconds.
STEPS, SECONDS = 3, 5.0
#: How long one step of the trial may take, where the machine reaches a quarter of its peak.
STEP_SECONDS, SHARE = 4.0, 0.25


@dataclass(frozen=True)
class Trial:
    """What was measured.

    Attributes:
        examples, tokens, flops: of a batch of the trial, on average; ELECTRA's tokens once.
        seconds: of a step, the median.
        steps: how many were timed.
        precision: the one in which it ran.
        machine_peak: operations a second of the fastest matrix product in that precision.
        kept: bytes that a batch's forward pass keeps for its backward pass.
        peak: bytes that were held at most, beyond what the process held before; 0: nobody knows.
    """

    examples: float
    tokens: float
    flops: float
    seconds: float
    steps: int
    precision: str
    machine_peak: float
    kept: int
    peak: int


class _EnoughError(Exception):
    """The trial is over."""


def trial_size(recipe: PretrainRecipe, flops_of_an_example: float, machine_peak: float) -> int:
    """How many examples a trial's batch has: the recipe's, or as many as this machine can do in some seconds."""
    wanted = recipe.batch_size or max(1, (recipe.batch_tokens or 0) // recipe.length)
    return max(1, min(wanted, int(STEP_SECONDS * SHARE * machine_peak / max(1.0, flops_of_an_example))))


def try_steps(
    recipe: PretrainRecipe,
    data: Data,
    tokenizer: AnyT5Tokenizer | ElectraTokenizer,
    device: torch.device,
    flops_of_an_example: float,
    execution: Execution = PLAIN,
) -> Trial:
    """Make some steps of a recipe with the loop that will train it, and forget them.

    Args:
        flops_of_an_example: about; it decides how many examples a batch of the trial has.

    Raises:
        UserError: settings that do not fit, or too little data.
    """
    with tempfile.TemporaryDirectory() as folder:
        precision = choose_precision(recipe.precision, device, Path(folder))
        machine_peak = matrix_peak(device.type, precision)
        small = dataclasses.replace(
            recipe,
            batch_size=trial_size(recipe, flops_of_an_example, machine_peak),
            batch_tokens=None,
            initial_batch_size=None,
            batch_warmup_steps=0,
            precision=precision,
            steps=1_000_000,
            warmup_steps=0,
            checkpoint_every=0,
            evaluate_every=0,
            log_every=1_000_000,
        )
        peak = Peak(device)
        work = pretraining_of(small, data, tokenizer, device)
        watch = _Watch(Kept(work.model.parameters()), device)

        def loss_of(*arguments: Any) -> Loss:
            with watch.step(arguments[0], arguments[1]):
                return work.loss_of(*arguments)

        with suppress(_EnoughError):
            train(
                work.model,
                work.batches,
                loss_of,
                small.loop_settings(),
                Path(folder),
                label="measuring",
                execution=execution,
            )
    flops = [work.flops(batch) for batch in watch.batches]
    return Trial(
        statistics.mean(_examples(batch) for batch in watch.batches),
        statistics.mean(_tokens(batch) for batch in watch.batches),
        statistics.mean(flops),
        statistics.median(watch.seconds),
        len(watch.seconds),
        precision,
        machine_peak,
        watch.kept.bytes,
        peak.bytes(),
    )


class _Watch:
    """Times steps by when they begin."""

    def __init__(self, kept: Kept, device: torch.device) -> None:
        self.kept = kept
        self.seconds: list[float] = []
        self.batches: list[Any] = []
        self._device = device
        self._begun = 0.0

    def step(self, batch: Any, number: int) -> Any:
        """Around the loss of a step; what the first keeps is counted.

        Raises:
            _EnoughError: enough steps are measured.
        """
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        if number > START_UP:
            self.seconds.append(now - self._begun)
            if len(self.seconds) >= STEPS and sum(self.seconds) >= SECONDS:
                raise _EnoughError
        self._begun = now
        if number >= START_UP:
            self.batches.append(batch)
        return self.kept.counting() if number == 0 else nullcontext()


def _examples(batch: Any) -> int:
    return len(batch["input_lengths" if "inputs" in batch else "lengths"])


def _tokens(batch: Any) -> int:
    return sum(len(batch[name]) for name in ("inputs", "targets", "tokens") if name in batch)
