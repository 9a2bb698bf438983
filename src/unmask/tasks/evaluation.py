"""Scoring a model on a task's held-out rows, beside baselines that need no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unmask.errors import UserError
from unmask.settings import nearest
from unmask.tasks.baselines import nearest_neighbour
from unmask.tasks.kinds.kind import Row, listed
from unmask.tasks.metrics import (
    Difference,
    Evaluation,
    Judged,
    Metric,
    RowStatistics,
    check_installed,
    paired_difference,
    row_statistics,
    score_predictions,
)
from unmask.tasks.models import TaskModel
from unmask.tasks.rows import check_labels, read_rows
from unmask.tasks.task import Split, Task


@dataclass(frozen=True)
class HeldOut:
    """What a task is judged on.

    Attributes:
        training: the training rows, which baselines learn from; none where the task has none.
        rows: the rows to answer; where the kind is so, rows with the same source are one row with several
            references.
    """

    task: Task
    training: Sequence[Row]
    rows: Sequence[Row]

    @classmethod
    def read(cls, task: Task, split: Split) -> HeldOut:
        """Raises:
        UserError: a file is missing or broken, a label was never seen in training, or a library that a metric needs
            is not installed.
        """
        check_installed(task.metrics)
        kind = task.its_kind
        training = read_rows(task, "train") if task.train is not None and kind.trains else []
        rows = read_rows(task, split, grouped=True)
        if kind.checks_labels and (training or task.label_names):
            check_labels(task, split, rows, kind.labels(task, training))
        found = cls(task, training, rows)
        if task.positive is not None and kind.head == "label" and task.positive not in found._labels:
            raise UserError(
                f"task {task.name!r}: no row has the label {task.positive!r} that `positive` names"
                f"{nearest(task.positive, sorted(found._labels))}"
            )
        return found

    @property
    def references(self) -> list[tuple[str, ...]]:
        return [row.references for row in self.rows]

    @property
    def judged(self) -> Judged:
        """What metrics compare predictions with."""
        groups, sources = [row.group for row in self.rows], [" ".join(row.sources) for row in self.rows]
        return Judged(self.references, self._positive(), groups, sources)

    def _positive(self) -> str | None:
        """The label that f1 is about: the same whichever rows are judged."""
        if not {"f1", "group_f1"} & set(self.task.metrics):
            return None
        return max(self._labels) if self.task.positive is None else self.task.positive

    @property
    def _labels(self) -> set[str]:
        """All that the task or a row names."""
        return {*self.task.label_names, *(row.target for row in (*self.training, *self.rows))}

    def score(self, predictions: Sequence[str]) -> Evaluation:
        """All metrics of the task, each with its 95 % bootstrap interval."""
        return score_predictions(self.task.metrics, predictions, self.judged)

    def statistics(self, predictions: Sequence[str]) -> RowStatistics:
        """What each row adds to the task's first metric."""
        return row_statistics(self.task.metrics[0], predictions, self.judged)

    def check_labels_of(self, learner: TaskModel, name: str) -> None:
        """Args:
            name: what the model is called.

        Raises:
            UserError: the model has learnt other labels than the task's, and would never be right.
        """
        head, answers = self.task.its_kind.head, getattr(learner, "labels", ())
        if head not in ("label", "tokens") or not answers:
            return
        targets = (row.target for row in (*self.training, *self.rows))
        wanted = {label for target in targets for label in (target.split() if head == "tokens" else [target])}
        if not wanted & set(answers):
            raise UserError(
                f"{name} answers with {listed(answers, 3)}, and task {self.task.name!r} has "
                f"{listed(sorted(wanted), 3)}: it has learnt another task, or its labels need other names "
                "(id2label in its config.json, `labels` in the task)"
            )

    def model(self, learner: TaskModel) -> Evaluation:
        """What a model scores."""
        return self.score([prediction.text for prediction in learner.predict(self.rows)])

    def differences(self, first: Evaluation, second: Evaluation) -> dict[Metric, Difference]:
        """By how much the first system scores higher than the second in each metric, by paired bootstrap."""
        return {
            metric: paired_difference(
                *(row_statistics(metric, each.predictions, self.judged) for each in (first, second))
            )
            for metric in self.task.metrics
        }

    def baselines(self) -> dict[str, Evaluation]:
        """What answers without a model score: without looking at the input, and the answer of the nearest training
        row by TF-IDF. Without training rows there is none, but of a kind that has nothing to learn the first."""
        kind = self.task.its_kind
        if not self.training and kind.trains:
            return {}
        name, simple = kind.simple_baseline(self.task, self.training, self.rows)
        if not self.training:
            return {name: self.score(simple)}
        near = nearest_neighbour(
            [" ".join(row.sources) for row in self.training],
            [row.target for row in self.training],
            [" ".join(row.sources) for row in self.rows],
        )
        fitted = [
            kind.neighbours(self.task, row, answer) for row, answer in zip(self.rows, near, strict=True)
        ]
        return {name: self.score(simple), "TF-IDF nearest neighbour": self.score(fitted)}
