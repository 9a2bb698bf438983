"""The one training loop. What a batch means is the caller's: a function from (batch, step) to a loss.

A step is a pure function of (weights, optimiser state, batch k, seed, k): batch k comes from a random-access
stream, and every draw inside the step is seeded by k. So a run that is killed anywhere and continued from its
newest checkpoint ends with the same weights, bit for bit, on the same machine with the same thread count.

Several processes, and several passes a step (`accumulate`), share batch k's texts: each makes its part of the same
loss, so that the result is the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unmask.data.ragged import rank_parts
from unmask.data.stream import read_ahead
from unmask.errors import UserError
from unmask.nn.sums import Sums
from unmask.objectives.randomness import generator
from unmask.training.activations import recomputed_layers
from unmask.training.allocator import kept_memory
from unmask.training.averages import MovingAverage
from unmask.training.best import BestWeights
from unmask.training.checkpoint_writer import CheckpointWriter
from unmask.training.checkpoints import load_mean, load_newest, newest_step, remove_leftovers, state_of
from unmask.training.compiling import check_compiler, compiled_layers
from unmask.training.determinism import deterministic_operations
from unmask.training.faults import find_fault
from unmask.training.health import Diagnose
from unmask.training.metrics import MetricsLog
from unmask.training.optimisers import layer_factors, make_optimiser
from unmask.training.parallel import Spread, check_parallel
from unmask.training.precision import choose_precision
from unmask.training.ranks import ALONE, Ranks
from unmask.training.schedules import schedule
from unmask.training.settings import PLAIN, Execution, LoopSettings
from unmask.training.stopping import Interrupted, stop_requests
from unmask.training.watching import Sample, Watch

Batch = Mapping[str, np.ndarray]

#: Where a run keeps its checkpoints.
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Loss:
    """What a step minimises and what it reports, or its part of one batch's texts.

    Attributes:
        total: a scalar that gradients flow from; of a part, so that the parts' totals add up to the batch's.
        measured: what to log, as sums.
        tokens: tokens that went through the model, for the rate.
    """

    total: Tensor
    measured: Sums
    tokens: int


@dataclass(frozen=True)
class _Step:
    """A step that was made.

    Attributes:
        number: from 0.
        finite: whether its loss and gradient were, so that it changed something: a truth value on the device.
    """

    number: int
    batch: Batch
    finite: Tensor


#: (a batch or some of its texts, step, the whole batch) → their loss, normalised by the counts of the whole batch.
#: May draw from torch's global generator, which is seeded by the step.
LossOf = Callable[[Batch, int, Batch], Loss]


def train(
    model: nn.Module,
    batches: Any,
    loss_of: LossOf,
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
    ranks: Ranks = ALONE,
    execution: Execution = PLAIN,
) -> MetricsLog:
    """Train `model` in place, continuing from the newest whole checkpoint in `directory` if there is one.

    With `judge` in the settings the model is left with the weights of its best evaluation (`training.best`).

    A step whose loss or gradient is not finite is skipped: weights and moments stay as they are, and a line of the
    kind "skipped" says where it went wrong. With `ema_decay` the model that is evaluated, and that is left at the
    end, is the moving average of the weights. With `parallel` "fsdp" it is whole at the end on the first rank alone.

    Args:
        batches: random access: `batches[k]` is batch k (a `grain.MapDataset`), the same on every rank.
        directory: where checkpoints/ and metrics.jsonl are kept.
        label: what the progress line calls this work.
        evaluate: held-out metrics, run with the model in evaluation mode and the training's precision.
        sample: what the model does with a held-out text, looked at after each evaluation and like it.
        flops: batch → floating-point operations of a step on it, for the log; None: nobody knows.
        diagnose: what ails the run, asked with the log's lines after each training line; its messages go to the
            terminal and, as lines of the kind "warning", into the log.
        data_workers: processes that make batches ahead; 0: a thread. It changes no result.
        tensorboard: write `directory`/tensorboard too.
        ranks: the processes that share each batch; `directory` is one that all of them see.
        execution: how they share the model, and how each makes its part of a step.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM on any rank, once the state is saved (where checkpoints are wanted).
        UserError: too many steps in a row were skipped, there is no room for a checkpoint, the optimiser cannot run on
            shards, or there is no compiler.
        FailedElsewhere: another rank ended by one of these.
    """
    check_parallel(execution.parallel, settings.optimiser)
    device = next(model.parameters()).device
    if execution.compile:
        check_compiler(device)
    with ranks.first_alone():
        settings = replace(settings, precision=choose_precision(settings.precision, device, directory))
        for place in (directory, directory / "checkpoints") if ranks.is_first else ():
            remove_leftovers(place)
    spread = Spread(model, ranks, execution.parallel)
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
    best = None
    if evaluate is not None and settings.judge is not None:
        best = BestWeights(directory, settings.judge, settings.patience)
    checkpoints = directory / CHECKPOINTS
    averages = None if average is None else average.values
    first = load_newest(checkpoints, model, optimiser, averages, ranks=ranks)
    with ranks.first_alone():
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
            ranks=ranks,
        )

    writer = CheckpointWriter(
        checkpoints,
        lambda: state_of(model, optimiser, averages),
        keep=settings.keep_checkpoints,
        keep_every=settings.keep_every,
        ranks=ranks,
    )

    made: _Step | None = None

    def settle() -> bool:
        """Whether the newest step counts, and what follows from that; once for each step, before weights change again.

        This is where the host waits for the device: for the verdict on a step, when the next one is already under way.
        """
        nonlocal made
        if made is None:
            return True
        newest, made = made, None
        if not newest.finite:
            skipped(newest.number + 1, _fault(spread, loss_of, newest, settings, execution.accumulate))
            return False
        if average is not None:
            average.update(newest.number)
        return True

    def evaluated(step: int, kind: str = "evaluation") -> None:
        settle()
        averaged = nullcontext() if average is None else average.in_place()
        with watch.paused(), averaged:
            with _evaluation(model), _autocast(device, settings):
                if evaluate is not None:
                    watch.evaluated(step, spread.look(evaluate), kind)
                if sample is not None:
                    watch.sampled(step, spread.look(sample))
            if best is not None:
                best.take(watch.log.lines, model)

    def skipped(step: int, fault: str) -> None:
        in_a_row = watch.skipped(step, fault)
        if in_a_row >= settings.max_skipped:
            writer.wait()
            newest = newest_step(checkpoints)
            saved = f"the last checkpoint is of step {newest}" if newest else "there is no checkpoint"
            with ranks.together():
                if ranks.is_first:
                    raise UserError(
                        f"{label}: stopped at step {step}, {in_a_row} steps in a row had no finite loss and gradient "
                        f"({fault}); {saved}: lower learning_rate, or lengthen the warm-up, in a new run"
                    )

    def first_passes() -> None:
        """Those of the run's first step, for nothing."""
        _backward(spread, loss_of, batches[0], 0, settings, execution.accumulate)
        optimiser.zero_grad(set_to_none=True)

    model.train()
    over = best is not None and best.is_over(watch.log.lines)
    until = first if over else settings.steps
    with (
        kept_memory(),
        compiled_layers(model) if execution.compile else nullcontext(),
        recomputed_layers(model) if execution.checkpoint_activations else nullcontext(),
        deterministic_operations(device, first_passes) if execution.deterministic else nullcontext(),
        stop_requests(ranks) as stop_requested,
        watch,
        writer,
        closing(read_ahead(batches, first, until, workers=data_workers)) as ahead,
    ):
        if first == 0 and best is None:
            evaluated(0)
        if execution.compile and first:
            # What is compiled may depend on the batch that it is first met with: that is the run's first, always.
            first_passes()
        for step, batch in zip(range(first, until), ahead, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * factor(step) * group["factor"]
            losses, made = _step(
                spread, optimiser, loss_of, batch, step, settings, execution.accumulate, settle
            )
            watch.stepped(batch, sum(loss.tokens for loss in losses) * ranks.count)
            done = step + 1
            last = done == settings.steps
            if (done % settings.log_every == 0 or last) and settle():
                measured = ranks.joined([loss.measured for loss in losses])
                values = {name: float(value) for name, value in measured.metrics().items()}
                watch.trained(done, values, settings.learning_rate * factor(step))
            if last or (settings.evaluate_every and done % settings.evaluate_every == 0):
                evaluated(done)
                over = best is not None and best.is_over(watch.log.lines)
            ending = last or over
            stopping, failed = ranks.any(stop_requested.is_set(), writer.has_failed())
            if failed:
                writer.wait()
            stopping = stopping and not ending
            if settings.checkpoint_every and (ending or stopping or done % settings.checkpoint_every == 0):
                settle()
                with watch.paused():
                    writer.save(done)
            if stopping:
                writer.wait()
                outcome = (
                    "saved: the same command continues from here"
                    if settings.checkpoint_every
                    else "not saved, as checkpoint_every is 0: the same command starts again"
                )
                with ranks.together():
                    if ranks.is_first:
                        raise Interrupted(
                            f"{label}: stopped after step {done} of {settings.steps}, {outcome}"
                        )
            if over and not last:
                watch.ended(done, f"{settings.patience} evaluations brought nothing better")
                break
        writer.wait()
        if settings.average_checkpoints:
            load_mean(checkpoints, model, settings.average_checkpoints, ranks=ranks)
            evaluated(settings.steps, "averaged")
    if best is not None:
        best.put_in(model)
    elif average is not None:
        average.put_in()
    spread.gather()
    model.eval()
    return watch.log


def _step(
    spread: Spread,
    optimiser: torch.optim.Optimizer,
    loss_of: LossOf,
    batch: Batch,
    step: int,
    settings: LoopSettings,
    accumulate: int,
    settle: Callable[[], bool],
) -> tuple[list[Loss], _Step]:
    """Make a step, which changes nothing unless its loss and gradient are finite; the host does not wait to know it.

    Args:
        settle: asked before anything is changed: whether the step before counts.

    Returns:
        The losses of this rank's passes, and what there is to ask of the step.
    """
    model, ranks = spread.model, spread.ranks
    optimiser.zero_grad(set_to_none=True)
    losses = _backward(spread, loss_of, batch, step, settings, accumulate)
    if not settle():
        # To find its fault it was made again, where this step's gradients were.
        losses = _backward(spread, loss_of, batch, step, settings, accumulate)
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = spread.norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    total = ranks.total(torch.stack([loss.total for loss in losses]).sum())
    finite = torch.isfinite(norm + total)
    if settings.clip_norm:
        nn.utils.clip_grads_with_norm_(parameters, settings.clip_norm, norm, foreach=True)
    optimiser.found_inf = (~finite).float()  # type: ignore[attr-defined]
    optimiser.step()
    return losses, _Step(step, batch, finite)


def _fault(spread: Spread, loss_of: LossOf, made: _Step, settings: LoopSettings, accumulate: int) -> str:
    """What of a step is not finite: it changed nothing, and is made again."""
    spread.model.zero_grad(set_to_none=True)
    found = find_fault(spread.model, _passes(spread, loss_of, made.batch, made.number, settings, accumulate))
    spread.model.zero_grad(set_to_none=True)
    everywhere = [fault for fault in spread.ranks.gathered(found) if fault is not None]
    return (everywhere or ["the norm of all gradients"])[0]


def _backward(
    spread: Spread, loss_of: LossOf, batch: Batch, step: int, settings: LoopSettings, accumulate: int
) -> list[Loss]:
    """Add this rank's gradients of a step to the weights' own: the losses of its passes."""
    losses = []
    for make in _passes(spread, loss_of, batch, step, settings, accumulate):
        total, loss = make()
        total.backward()
        losses.append(replace(loss, total=total.detach()))
    return losses


def _passes(
    spread: Spread, loss_of: LossOf, batch: Batch, step: int, settings: LoopSettings, accumulate: int
) -> Iterator[Callable[[], tuple[Tensor, Loss]]]:
    """What this rank makes of a step, part by part: the loss that gradients flow from, and what was measured."""
    device = next(spread.model.parameters()).device
    parts = rank_parts(dict(batch), spread.ranks.number, spread.ranks.count, accumulate)

    def compute(part: Batch, counts: bool) -> tuple[Tensor, Loss]:
        # The same seed for each part: draws are told apart by the texts' numbers in the whole batch.
        torch.manual_seed(step_seed(settings.seed, "step", step))
        with _autocast(device, settings):
            loss = loss_of(part, step, batch)
        if not counts:
            loss = Loss(loss.total * 0, loss.measured.of_nothing(), 0)
        return loss.total, loss

    for number, part in enumerate(parts, 1):
        yield partial(spread.run, compute, *part, last=number == len(parts))


def _autocast(device: torch.device, settings: LoopSettings) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16")


def step_seed(seed: int, purpose: str, step: int) -> int:
    """A seed for torch that is a function of the run's seed, a purpose and the step."""
    return int(generator(seed, purpose, step).integers(2**63))


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
