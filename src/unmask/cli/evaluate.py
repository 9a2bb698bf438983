"""`unmask evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from unmask.cli.machine import Machine


def evaluate(
    task: Path,
    model: str,
    *,
    split: Literal["validation", "test"] | None = None,
    out: Path | None = None,
    machine: Machine = Machine(),  # noqa: B008 (frozen)
) -> None:
    """Score a fine-tuned model on held-out rows, beside simple baselines.

    Args:
        task: the task's TOML file.
        model: a fine-tuned model directory or Hub name.
        split: which rows; default: test where the task has a test file, else validation.
        out: a JSON file for scores, intervals and predictions.
    """
    from rich.console import Console

    from unmask.hub import write_json
    from unmask.report import print_table
    from unmask.tasks.evaluation import HeldOut
    from unmask.tasks.models import load_for_prediction
    from unmask.tasks.presentation import as_json, score_table
    from unmask.tasks.task import load_task

    chosen = load_task(task)
    held_out = HeldOut.read(chosen, split or ("test" if chosen.test else "validation"))
    learner = load_for_prediction(chosen, model, device=machine.prepare())
    evaluations = held_out.baselines() | {"this model": held_out.model(learner)}
    print_table(score_table(chosen, evaluations, len(held_out.rows)), Console())
    if out is not None:
        predictions = list(evaluations["this model"].predictions)
        scores = {name: as_json(evaluation) for name, evaluation in evaluations.items()}
        write_json(out, {"task": chosen.name, "scores": scores, "predictions": predictions})
