"""The one training loop. What a batch means is the caller's: a function from (batch, step) to a loss.

A step is a pure function of (weights, optimiser state, batch k, seed, k): batch k comes from a random-access
stream, and every draw inside the step is seeded by k. So a run that is killed anywhere and continued from its
newest checkpoint ends with the same weights, bit for bit, on the same machine with the same thread count.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unmask.data.stream import read_ahead
from unmask.errors import UserError
from unmask.objectives.randomness import generator
from unmask.training.allocator import kept_memory
from unmask.training.averages import MovingAverage
from unmask.training.checkpoints import load_mean, load_newest, newest_step, remove_leftovers, save_checkpoint
from unmask.training.faults import find_fault
from unmask.training.health import Diagnose
from unmask.training.metrics import MetricsLog
from unmask.training.optimisers import layer_factors, make_optimiser
from unmask.training.precision import choose_precision
from unmask.training.schedules import schedule
from unmask.training.settings import LoopSettings
from unmask.training.watching import Sample, Watch

Batch = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Loss:
    """What a step minimises and what it reports.

    Attributes:
        total: a scalar that gradients flow from.
        metrics: scalars to log, detached.
        tokens: tokens that went through the model, for the rate.
    """

    total: Tensor
    metrics: Mapping[str, Tensor]
    tokens: int


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM came; the message says whether the state is saved and how to go on."""


def train(
    model: nn.Module,
    batches: Any,
    loss_of: Callable[[Batch, int], Loss],
    settings: LoopSettings,
    directory: Path,
    *,
    label: str,
    evaluate: Callable[[], Mapping[str, float]] | None = None,
    sample: Callable[[], Sample] | None = None,
    flops: Callable[[Batch], int] | None = None,
    diagnose: Diagnose | None = None,
    data_workers: int = 0,
    tensorboard: bool = False,
) -> MetricsLog:
    """Train `model` in place, continuing from the newest whole checkpoint in `directory` if there is one.

    A step whose loss or gradient is not finite is skipped: weights and moments stay as they are, and a line of the
    kind "skipped" says where it went wrong. With `ema_decay` the model that is evaluated, and that is left at the
    end, is the moving average of the weights.

    Args:
        batches: random access: `batches[k]` is batch k (a `grain.MapDataset`).
        loss_of: (batch, step) → Loss; may draw from torch's global generator, which is seeded by the step.
        directory: where checkpoints/ and metrics.jsonl are kept.
        label: what the progress line calls this work.
        evaluate: held-out metrics, run with the model in evaluation mode and the training's precision.
        sample: what the model does with a held-out text, looked at after each evaluation and like it.
        flops: batch → floating-point operations of a step on it, for the log; None: nobody knows.
        diagnose: what ails the run, asked with the log's lines after each training line; its messages go to the
            terminal and, as lines of the kind "warning", into the log.
        data_workers: processes that make batches ahead; 0: a thread. It changes no result.
        tensorboard: write `directory`/tensorboard too.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, once the state is saved (where checkpoints are wanted).
        UserError: too many steps in a row were skipped, or there is no room for a checkpoint.
    """
    device = next(model.parameters()).device
    settings = replace(settings, precision=choose_precision(settings.precision, device, directory))
    optimiser = make_optimiser(
        settings.optimiser,
        model.named_parameters(),
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        factors=None
        if settings.layer_decay == 1
        else layer_factors((name for name, _ in model.named_parameters()), settings.layer_decay),
    )
    factor = schedule(
        settings.schedule,
        steps=settings.steps,
        warmup_steps=settings.warmup_steps,
        decay_share=settings.decay_share,
        final_factor=settings.final_factor,
    )
    average = MovingAverage(model, settings.ema_decay) if settings.ema_decay else None
    checkpoints = directory / "checkpoints"
    for place in (directory, checkpoints):
        remove_leftovers(place)
    first = load_newest(checkpoints, model, optimiser, None if average is None else average.values)
    watch = Watch(
        label,
        directory,
        first,
        settings.steps,
        device=device,
        precision=settings.precision,
        flops=flops,
        diagnose=diagnose,
        tensorboard=tensorboard,
    )

    def save(step: int) -> None:
        save_checkpoint(
            checkpoints,
            step,
            model,
            optimiser,
            keep=settings.keep_checkpoints,
            keep_every=settings.keep_every,
            average=None if average is None else average.values,
        )

    def evaluated(step: int, kind: str = "evaluation") -> None:
        averaged = nullcontext() if average is None else average.in_place()
        with watch.paused(), averaged, _evaluation(model), _autocast(model, settings):
            if evaluate is not None:
                watch.evaluated(step, evaluate(), kind)
            if sample is not None:
                watch.sampled(step, sample())

    def skipped(step: int, fault: str) -> None:
        in_a_row = watch.skipped(step, fault)
        if in_a_row >= settings.max_skipped:
            newest = newest_step(checkpoints)
            saved = f"the last checkpoint is of step {newest}" if newest else "there is no checkpoint"
            raise UserError(
                f"{label}: stopped at step {step}, {in_a_row} steps in a row had no finite loss and gradient "
                f"({fault}); {saved}: lower learning_rate, or lengthen the warm-up, in a new run"
            )

    model.train()
    with (
        kept_memory(),
        _stop_requests() as stop_requested,
        watch,
        closing(read_ahead(batches, first, settings.steps, workers=data_workers)) as ahead,
    ):
        if first == 0:
            evaluated(0)
        for step, batch in zip(range(first, settings.steps), ahead, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * factor(step) * group["factor"]
            loss, fault = _step(model, optimiser, loss_of, batch, step, settings)
            watch.stepped(batch, loss.tokens)
            done = step + 1
            last = done == settings.steps
            if fault is not None:
                skipped(done, fault)
            elif average is not None:
                average.update(step)
            if fault is None and (done % settings.log_every == 0 or last):
                values = {name: float(value) for name, value in loss.metrics.items()}
                watch.trained(done, values, settings.learning_rate * factor(step))
            if last or (settings.evaluate_every and done % settings.evaluate_every == 0):
                evaluated(done)
            stopping = stop_requested.is_set() and not last
            if settings.checkpoint_every and (last or stopping or done % settings.checkpoint_every == 0):
                with watch.paused():
                    save(done)
            if stopping:
                outcome = (
                    "saved: the same command continues from here"
                    if settings.checkpoint_every
                    else "not saved, as checkpoint_every is 0: the same command starts again"
                )
                raise Interrupted(f"{label}: stopped after step {done} of {settings.steps}, {outcome}")
        if settings.average_checkpoints:
            load_mean(checkpoints, model, settings.average_checkpoints)
            evaluated(settings.steps, "averaged")
    if average is not None:
        average.put_in()
    model.eval()
    return watch.log


def _step(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    loss_of: Callable[[Batch, int], Loss],
    batch: Batch,
    step: int,
    settings: LoopSettings,
) -> tuple[Loss, str | None]:
    """Make a step, unless its loss or gradient is not finite: then what of it is not, and nothing is changed."""

    def compute() -> Loss:
        torch.manual_seed(step_seed(settings.seed, "step", step))
        with _autocast(model, settings):
            return loss_of(batch, step)

    loss = compute()
    optimiser.zero_grad(set_to_none=True)
    loss.total.backward()
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm(
        [parameter.grad for parameter in parameters if parameter.grad is not None], foreach=True
    )
    # On a GPU this waits for the backward pass, once a step.
    if not torch.isfinite(norm + loss.total.detach()):
        optimiser.zero_grad(set_to_none=True)
        fault = find_fault(model, lambda: compute().total)
        optimiser.zero_grad(set_to_none=True)
        return loss, fault
    if settings.clip_norm:
        nn.utils.clip_grads_with_norm_(parameters, settings.clip_norm, norm, foreach=True)
    optimiser.step()
    return loss, None


def _autocast(model: nn.Module, settings: LoopSettings) -> torch.autocast:
    device = next(model.parameters()).device.type
    return torch.autocast(device, torch.bfloat16, enabled=settings.precision == "bfloat16")


def step_seed(seed: int, purpose: str, step: int) -> int:
    """A seed for torch that is a function of the run's seed, a purpose and the step."""
    return int(generator(seed, purpose, step).integers(2**63))


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Turns Ctrl-C and SIGTERM into a request that the loop answers between two steps.

    A second Ctrl-C interrupts at once, as usual: the newest checkpoint is whole either way.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if requested.is_set():
            raise KeyboardInterrupt
        requested.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
