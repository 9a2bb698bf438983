"""Fine-tuning a model on a task."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from unmask.errors import UserError
from unmask.tasks.card import about_task
from unmask.tasks.kinds.kind import Row
from unmask.tasks.learning import Lesson, learn
from unmask.tasks.models import load_for_training
from unmask.tasks.rows import read_rows
from unmask.tasks.settings import FinetuneSettings
from unmask.tasks.task import Task
from unmask.tasks.validation import Validation
from unmask.training.loop import step_seed
from unmask.training.ranks import ALONE, Ranks
from unmask.training.runs import MODEL, claim_run
from unmask.training.settings import PLAIN, Execution

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
    execution: Execution = PLAIN,
) -> Path:
    """Train a model on a task's training rows and write it to `directory/model`; continues a stopped run.

    Where the task has validation rows, the weights that did best on them are kept, and a run that gets no better
    ends early (`unmask.tasks.learning`).

    Args:
        model: a model directory or Hub name; of an ELECTRA pair the discriminator is taken for a head, both for
            text-to-text.
        fresh_weights: start from drawn weights of the same shape instead: the task without pre-training.
        ranks, execution: see `loop.train`.

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
                "task": as_claim(task),
                "model": str(model),
                "fresh_weights": fresh_weights,
                "settings": as_claim(settings),
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
    emphasise(learner, rows, settings)
    lesson = Lesson(
        learner,
        learner.examples(rows),
        len(rows),
        f"fine-tuning on {task.name}",
        task.metrics[0],
        # Of several processes none sees the others' answers: there the last weights are kept.
        Validation.of(task, learner, settings) if ranks.count == 1 else None,
        about_task(task, len(rows)),
    )
    learn(
        lesson,
        model,
        directory,
        settings,
        fresh_weights=fresh_weights,
        ranks=ranks,
        execution=execution,
    )
    return destination


def emphasise(learner: Any, rows: Sequence[Row], settings: FinetuneSettings) -> None:
    """Give a learner its label smoothing and class weights.

    Raises:
        UserError: it has no labels.
    """
    kind = learner.task.kind
    if settings.label_smoothing:
        if not getattr(learner, "smooths", False):
            raise UserError(f"label_smoothing has no meaning for {kind} with this model: leave it out")
        learner.label_smoothing = settings.label_smoothing
    if settings.class_weights == "balanced":
        if not (getattr(learner, "smooths", False) and hasattr(learner, "balance")):
            raise UserError(
                f"class_weights are for an ELECTRA's labels of texts or words, not for {kind} here: leave them out"
            )
        learner.balance(rows)


def as_claim(settings: Any) -> dict[str, Any]:
    """A dataclass of settings as JSON values, as a run's claim holds them."""
    return {
        key: value if value is None or isinstance(value, bool | int | float) else str(value)
        for key, value in dataclasses.asdict(settings).items()
    }
