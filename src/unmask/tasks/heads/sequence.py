"""ELECTRA for whole texts: labels, and numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from unmask.data.finetuning import Labelled
from unmask.electra.heads import ElectraForSequenceClassification
from unmask.tasks.heads.head import ElectraTaskModel
from unmask.tasks.kinds.kind import Prediction, Row
from unmask.tasks.task import Task
from unmask.training.batches import task_loss, to_tensor
from unmask.training.loop import Batch, Loss


class ClassificationModel(ElectraTaskModel):
    """One of the labels, by cross-entropy."""

    model_class = ElectraForSequenceClassification
    model: ElectraForSequenceClassification
    smooths = True

    @classmethod
    def settings(cls, task: Task, rows: Sequence[Row]) -> dict[str, Any]:
        return super().settings(task, rows) | {"classification_head": task.head}

    def examples(self, rows: Sequence[Row]) -> Labelled:
        rows = self.both_orders(rows)
        return self.encoded(rows, self.targets(rows))

    def both_orders(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows; where the order of two texts says nothing, once in each order."""
        if not self.task.symmetric:
            return rows
        return [*rows, *(replace(row, sources=row.sources[::-1]) for row in rows)]

    def targets(self, rows: Sequence[Row]) -> Sequence[int] | Sequence[float]:
        number = {label: index for index, label in enumerate(self.labels)}
        return [number[row.target] for row in rows]

    def encoded(
        self, rows: Sequence[Row], targets: Sequence[int] | Sequence[float] | Sequence[Sequence[float]]
    ) -> Labelled:
        first, second = self.segments(rows)
        batch = self.tokenizer(first, second, truncation=True, max_length=self.limit)
        return Labelled(batch["input_ids"], targets, token_types=batch["token_type_ids"])

    def loss(self, batch: Batch, step: int, whole: Batch) -> Loss:
        logits = self.model.sequence_logits(*self.packed(batch))
        labels = to_tensor(batch["labels"], self.device)
        loss_sum = nn.functional.cross_entropy(
            logits.float(),
            labels,
            self.class_weights,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        hits = (logits.argmax(-1) == labels).sum()
        # Where classes weigh differently the mean is the weighted one.
        of: float = len(whole["labels"])
        if self.class_weights is not None:
            of = float(self.class_weights.cpu()[torch.from_numpy(whole["labels"])].sum())
        return task_loss(loss_sum, len(labels), of, len(batch["inputs"]), hits)

    def balance(self, rows: Sequence[Row]) -> None:
        """Weigh each label by rows / (labels · its rows), as scikit-learn's "balanced"; one without rows by 1."""
        counts = Counter(row.target for row in rows)
        weights = [
            len(rows) / (len(self.labels) * counts[label]) if counts[label] else 1.0 for label in self.labels
        ]
        self.class_weights = torch.tensor(weights, device=self.device)

    @torch.inference_mode()
    def outputs(self, rows: Sequence[Row]) -> torch.Tensor:
        """(rows, outputs) float32, on the CPU: what the head gives for each row."""
        found = torch.empty(len(rows), self.model.config.num_labels)
        for numbers, batch in self.batches(self.encoded(rows, [0] * len(rows))):
            found[torch.tensor(numbers)] = self.model.sequence_logits(*self.packed(batch)).float().cpu()
        return found

    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        shares, best = self.outputs(rows).softmax(-1).max(-1)
        return [
            Prediction(self.labels[label], share)
            for label, share in zip(best.tolist(), shares.tolist(), strict=True)
        ]


class RegressionModel(ClassificationModel):
    """A number, by the squared error."""

    smooths = False

    @classmethod
    def settings(cls, task: Task, rows: Sequence[Row]) -> dict[str, Any]:
        return {"labels": (task.target,), "problem_type": "regression", "classification_head": task.head}

    def targets(self, rows: Sequence[Row]) -> Sequence[float]:
        return [float(row.target) for row in rows]

    def loss(self, batch: Batch, step: int, whole: Batch) -> Loss:
        numbers = self.model.sequence_logits(*self.packed(batch))
        labels = torch.from_numpy(batch["labels"]).to(self.device)
        loss_sum = self.model.loss(numbers, labels) * len(labels)
        return task_loss(loss_sum, len(labels), len(whole["labels"]), len(batch["inputs"]))

    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        return [Prediction(f"{value:.6g}") for value in self.outputs(rows).flatten().tolist()]
