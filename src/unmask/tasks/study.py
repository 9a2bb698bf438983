"""What pre-training is worth on a task: the same model with and without it, beside baselines without a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from unmask.tasks.evaluation import HeldOut
from unmask.tasks.finetuning import finetune
from unmask.tasks.metrics import Difference, Evaluation, paired_difference
from unmask.tasks.models import load_for_prediction
from unmask.tasks.presentation import as_json
from unmask.tasks.settings import FinetuneSettings
from unmask.tasks.task import Task

PRETRAINED = "pre-trained, then fine-tuned"
FROM_SCRATCH = "same model, fine-tuned from scratch"


@dataclass(frozen=True)
class Study:
    """The outcome.

    Attributes:
        held_out: the rows that were answered.
        evaluations: by system: baselines, FROM_SCRATCH, PRETRAINED.
        gain: PRETRAINED minus FROM_SCRATCH in the task's metric, with the 95 % paired bootstrap interval.
    """

    held_out: HeldOut
    evaluations: Mapping[str, Evaluation]
    gain: Difference

    @property
    def task(self) -> Task:
        return self.held_out.task

    def as_json(self) -> dict[str, Any]:
        return {
            "metric": self.task.metrics[0],
            "held_out_rows": len(self.held_out.rows),
            "training_rows": len(self.held_out.training),
            "systems": {name: as_json(evaluation) for name, evaluation in self.evaluations.items()},
            "gain_of_pretraining": asdict(self.gain),
        }


def study(
    task: Task, model: Path, directory: Path, settings: FinetuneSettings, *, device: torch.device
) -> Study:
    """Fine-tune a pre-trained model and the same model with fresh weights, and score both.

    Args:
        directory: runs are kept in `pre-trained/` and `from-scratch/` there.
    """
    held_out = HeldOut.read(task, "test")
    evaluations = held_out.baselines()
    for name, place in ((FROM_SCRATCH, "from-scratch"), (PRETRAINED, "pre-trained")):
        tuned = finetune(
            task, str(model), directory / place, settings, device=device, fresh_weights=name == FROM_SCRATCH
        )
        evaluations[name] = held_out.model(load_for_prediction(task, tuned, device=device))
    statistics = [held_out.statistics(evaluations[name].predictions) for name in (PRETRAINED, FROM_SCRATCH)]
    return Study(held_out, evaluations, paired_difference(*statistics))
