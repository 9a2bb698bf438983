"""Scoring a model on a task's held-out rows, beside baselines that need no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unmask.tasks.baselines import copy_input, majority_class, nearest_neighbour
from unmask.tasks.metrics import Evaluation, score_predictions
from unmask.tasks.models import TaskModel
from unmask.tasks.rows import Row, check_labels, labels_of, read_rows
from unmask.tasks.task import Split, Task


@dataclass(frozen=True)
class HeldOut:
    """What a task is judged on.

    Attributes:
        training: the training rows, which baselines learn from.
        rows: the rows to answer; of text-to-text, rows with the same source are one row with several
            references.
    """

    task: Task
    training: Sequence[Row]
    rows: Sequence[Row]

    @classmethod
    def read(cls, task: Task, split: Split) -> HeldOut:
        """Raises:
        UserError: a file is missing or broken, or a label was never seen in training.
        """
        training = read_rows(task, "train")
        rows = read_rows(task, split, grouped=task.kind == "text-to-text")
        if task.kind == "classification":
            check_labels(task, split, rows, labels_of(training))
        return cls(task, training, rows)

    @property
    def sources(self) -> list[tuple[str, ...]]:
        return [row.sources for row in self.rows]

    @property
    def references(self) -> list[tuple[str, ...]]:
        return [row.references for row in self.rows]

    def score(self, predictions: Sequence[str]) -> Evaluation:
        """All metrics of the task's kind, each with its 95 % bootstrap interval."""
        return score_predictions(self.task.metrics, predictions, self.references)

    def model(self, learner: TaskModel) -> Evaluation:
        """What a model scores."""
        return self.score(learner.predict(self.sources))

    def baselines(self) -> dict[str, Evaluation]:
        """What answers without a model score: the majority class or the input itself, and the answer of the
        nearest training row by TF-IDF."""
        texts = [" ".join(row) for row in self.sources]
        training_texts = [" ".join(row.sources) for row in self.training]
        targets = [row.target for row in self.training]
        if self.task.kind == "classification":
            simple = {"majority class": majority_class(targets, len(texts))}
        else:
            simple = {"copy of the input": copy_input(texts)}
        near = nearest_neighbour(training_texts, targets, texts)
        return {
            name: self.score(answers)
            for name, answers in (simple | {"TF-IDF nearest neighbour": near}).items()
        }
