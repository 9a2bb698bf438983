"""Fine-tuning a model on a task."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import torch

from unmask import hub
from unmask.data.stream import TrainingBatches
from unmask.tasks.models import load_for_training
from unmask.tasks.rows import read_rows
from unmask.tasks.settings import FinetuneSettings
from unmask.tasks.task import Task
from unmask.training.loop import step_seed, train
from unmask.training.ranks import ALONE, Ranks
from unmask.training.runs import MODEL, claim_run
from unmask.training.settings import Parallel

logger = logging.getLogger("unmask")


def finetune(
    task: Task,
    model: str,
    directory: Path,
    settings: FinetuneSettings,
    *,
    device: torch.device,
    fresh_weights: bool = False,
    ranks: Ranks = ALONE,
    parallel: Parallel = "ddp",
    accumulate: int = 1,
) -> Path:
    """Train a model on a task's training rows and write it to `directory/model`; continues a stopped run.

    Args:
        model: a model directory or Hub name; of an ELECTRA pair the discriminator is taken for classification,
            both for text-to-text.
        fresh_weights: start from drawn weights of the same shape instead: the task without pre-training.
        ranks, parallel, accumulate: see `loop.train`.

    Returns:
        The model's directory; at once if it is already there.

    Raises:
        UserError: data, model and task do not fit, or `directory` holds a run with other settings.
    """
    destination = directory / MODEL
    with ranks.first_alone():
        claim_run(
            directory,
            {
                "task": {key: str(value) for key, value in dataclasses.asdict(task).items()},
                "model": str(model),
                "fresh_weights": fresh_weights,
                "settings": dataclasses.asdict(settings),
            },
        )
    if ranks.same(destination.is_dir()):
        logger.warning("%s is finished: its model is in %s", directory, destination)
        return destination
    rows = read_rows(task, "train")
    torch.manual_seed(step_seed(settings.seed, "initialisation", 0))
    learner = load_for_training(
        task,
        model,
        rows,
        fresh_weights=fresh_weights,
        device=device,
        seed=settings.seed,
        electra_writes_by=settings.electra_writes_by,
    )
    source = learner.examples(rows)
    batches = TrainingBatches(source, batch_size=settings.batch_size, seed=settings.seed)
    steps = max(1, round(settings.epochs * batches.batches_per_epoch))
    train(
        learner.model,
        batches,
        learner.loss,
        settings.loop_settings(steps),
        directory,
        label=f"fine-tuning on {task.name}",
        ranks=ranks,
        parallel=parallel,
        accumulate=accumulate,
    )
    with ranks.together():
        if ranks.is_first:
            with hub.atomic_directory(destination) as temporary:
                learner.save_pretrained(temporary)
    return destination
