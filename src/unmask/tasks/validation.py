"""A task's validation rows as the judge of a run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Protocol, Self

import torch

from unmask.tasks.evaluation import HeldOut
from unmask.tasks.models import TaskModel
from unmask.tasks.settings import FinetuneSettings
from unmask.tasks.task import Task

#: The baseline that is no sign of failure: some texts are hard to improve on.
_COPY = "copy of the input"


class Judge(Protocol):
    """What a run is judged by."""

    def __call__(self) -> Mapping[str, float]:
        """The scores of the model as it is."""

    def baseline(self) -> float:
        """What is scored without a look at the input."""


class Validation:
    """Rows of a task that a learner is judged by.

    Args:
        most: rows that are answered, at equal distances; 0: all.
    """

    def __init__(self, task: Task, learner: TaskModel, most: int) -> None:
        held_out = HeldOut.read(task, "validation")
        rows = held_out.rows
        if most and len(rows) > most:
            rows = [rows[number * len(rows) // most] for number in range(most)]
        self.held_out = dataclasses.replace(held_out, rows=rows)
        self.task, self.learner = task, learner

    @classmethod
    def of(cls, task: Task, learner: TaskModel, settings: FinetuneSettings) -> Self | None:
        """None where the task has no validation rows, or the settings want no evaluation."""
        if task.validation is None or settings.evaluate_every == 0:
            return None
        return cls(task, learner, settings.evaluation_rows)

    def __call__(self) -> Mapping[str, float]:
        # In the precision in which the model will be used.
        device = next(self.learner.model.parameters()).device
        with torch.autocast(device.type, enabled=False):
            return dict(self.held_out.model(self.learner).scores)

    def baseline(self) -> float:
        """The score of the best answer without a look at the input, be it the most frequent in training or here; 0 for
        the input itself as the answer."""
        rows = self.held_out.rows
        scores = [0.0]
        for known in (self.held_out.training, rows):
            name, answers = self.task.its_kind.simple_baseline(self.task, known, rows)
            score = self.held_out.statistics(answers).total()
            if name != _COPY and not math.isnan(score):
                scores.append(float(score))
        return max(scores)
