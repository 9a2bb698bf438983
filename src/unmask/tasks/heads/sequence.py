"""ELECTRA for whole texts: labels, and numbers."""

from __future__ import annotations

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

    @classmethod
    def settings(cls, task: Task, rows: Sequence[Row]) -> dict[str, Any]:
        return super().settings(task, rows) | {"classification_head": task.head}

    def examples(self, rows: Sequence[Row]) -> Labelled:
        """The rows; where the order of two texts says nothing, once in each order."""
        if self.task.symmetric:
            rows = [*rows, *(replace(row, sources=row.sources[::-1]) for row in rows)]
        return self.encoded(rows, self.targets(rows))

    def targets(self, rows: Sequence[Row]) -> Sequence[int] | Sequence[float]:
        number = {label: index for index, label in enumerate(self.labels)}
        return [number[row.target] for row in rows]

    def encoded(self, rows: Sequence[Row], targets: Sequence[int] | Sequence[float]) -> Labelled:
        first, second = self.segments(rows)
        batch = self.tokenizer(first, second, truncation=True, max_length=self.limit)
        return Labelled(batch["input_ids"], targets, token_types=batch["token_type_ids"])

    def loss(self, batch: Batch, step: int, whole: Batch) -> Loss:
        logits = self.model.sequence_logits(*self.packed(batch))
        labels = to_tensor(batch["labels"], self.device)
        loss_sum = nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
        hits = (logits.argmax(-1) == labels).sum()
        return task_loss(loss_sum, len(labels), len(whole["labels"]), len(batch["inputs"]), hits)

    @torch.inference_mode()
    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        answers = [Prediction("")] * len(rows)
        for numbers, batch in self.batches(self.encoded(rows, [0] * len(rows))):
            shares = self.model.sequence_logits(*self.packed(batch)).float().softmax(-1)
            for number, row in zip(numbers, shares, strict=True):
                best = int(row.argmax())
                answers[number] = Prediction(self.labels[best], float(row[best]))
        return answers


class RegressionModel(ClassificationModel):
    """A number, by the squared error."""

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

    @torch.inference_mode()
    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        answers = [Prediction("")] * len(rows)
        for numbers, batch in self.batches(self.encoded(rows, [0.0] * len(rows))):
            found = self.model.sequence_logits(*self.packed(batch)).float().flatten().tolist()
            for number, value in zip(numbers, found, strict=True):
                answers[number] = Prediction(f"{value:.6g}")
        return answers
