"""unmask's side of a timed pre-training: its own loop."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from pretraining import START_UP, Clock, Job

from unmask.training.family import Pretraining
from unmask.training.loop import Batch, Loss, train
from unmask.training.pretraining import pretraining_of

#: Seconds of steps that are timed to reckon the others from, at most, and as a share of the time.
TIMED, TIMED_SHARE = 8.0, 0.25


def train_timed(job: Job, steps: int, save: Callable[[Pretraining, float], None] | None) -> tuple[Clock, int]:
    """Train for so many steps; the clock that ran, and how many tokens were read."""
    recipe = job.with_steps(steps)
    work = pretraining_of(recipe, job.shards, job.tokenizer, job.device)
    clock, tokens = job.new_clock(), 0

    def loss_of(batch: Batch, step: int, whole: Batch) -> Loss:
        nonlocal tokens
        if step == START_UP:
            clock.start()
        loss = work.loss_of(batch, step, whole)
        if step >= START_UP:
            tokens += sum(len(batch[name]) for name in ("inputs", "targets", "tokens") if name in batch)
        return loss

    begun = False

    def evaluate() -> Mapping[str, float]:
        nonlocal begun
        running = begun and clock.seconds() > 0
        clock.stop()
        if save is not None:
            save(work, clock.seconds())
        begun = True
        if running:
            clock.start()
        return {}

    with tempfile.TemporaryDirectory() as folder:
        train(
            work.model,
            work.batches,
            loss_of,
            recipe.loop_settings(),
            Path(folder),
            label="unmask",
            evaluate=evaluate,
        )
    clock.stop()
    return clock, tokens


def seconds_a_step(job: Job) -> float:
    count = 8
    for _ in range(2):
        clock, _ = train_timed(job, START_UP + count, None)
        found = clock.seconds() / count
        count = max(8, int(min(TIMED, TIMED_SHARE * job.seconds) / found))
    return found


def main() -> None:
    job = Job()
    folder = job.snapshots("pretrain_ours")
    steps = START_UP + max(8, int(job.seconds / seconds_a_step(job)))

    def save(work: Pretraining, seconds: float) -> None:
        work.save(folder / f"{seconds:010.3f}")

    clock, tokens = train_timed(job, steps, save)
    work = pretraining_of(job.with_steps(steps), job.shards, job.tokenizer, job.device)
    parameters = sum(parameter.numel() for parameter in work.model.parameters())
    job.write(
        "pretrain_ours",
        {"steps": steps, "tokens": tokens, "seconds": clock.seconds(), "parameters": parameters},
    )


if __name__ == "__main__":
    main()
