"""ELECTRA for whole texts: labels, and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from unmask.data.finetuning import Labelled
from unmask.electra.heads import ElectraForSequenceClassification
from unmask.tasks.heads.head import Decisions, ElectraTaskModel
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
        rows = self._both_orders(rows)
        return self._encoded(rows, self._targets(rows))

    def _both_orders(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows; where the order of two texts says nothing, once in each order."""
        if not self.task.symmetric:
            return rows
        return [*rows, *(replace(row, sources=row.sources[::-1]) for row in rows)]

    def _targets(self, rows: Sequence[Row]) -> Sequence[int] | Sequence[float]:
        number = {label: index for index, label in enumerate(self.labels)}
        return [number[row.target] for row in rows]

    def _encoded(self, rows: Sequence[Row], targets: Sequence[int] | Sequence[float]) -> Labelled:
        ids, types = self._read(rows)
        return Labelled(ids, targets, token_types=types)

    def read(self, row: Row) -> tuple[list[int], list[int]]:
        """The ids of a row as the model reads it, and their segments."""
        (ids,), (types,) = self._read([row])
        return ids, types

    def _read(self, rows: Sequence[Row]) -> tuple[list[list[int]], list[list[int]]]:
        first, second = self.segments(rows)
        batch = self.tokenizer(first, second, truncation=True, max_length=self.limit)
        return batch["input_ids"], batch["token_type_ids"]

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
        return task_loss(loss_sum, len(labels), self.weight_of(whole["labels"]), len(batch["inputs"]), hits)

    def decisions(self, batch: Batch) -> Decisions:
        labels = to_tensor(batch["labels"], self.device)
        logits = self.model.sequence_logits(*self.packed(batch)).float()
        return Decisions(logits, labels, [1] * len(labels))

    def balance(self, rows: Sequence[Row]) -> None:
        self.weigh([row.target for row in rows])

    @torch.inference_mode()
    def outputs(self, rows: Sequence[Row]) -> torch.Tensor:
        """(rows, outputs) float32, on the CPU: what the head gives for each row."""
        found = torch.empty(len(rows), self.model.config.num_labels)
        for numbers, batch in self.batches(self._encoded(rows, [0] * len(rows))):
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

    def _targets(self, rows: Sequence[Row]) -> Sequence[float]:
        return [float(row.target) for row in rows]

    def loss(self, batch: Batch, step: int, whole: Batch) -> Loss:
        numbers = self.model.sequence_logits(*self.packed(batch))
        labels = torch.from_numpy(batch["labels"]).to(self.device)
        loss_sum = self.model.loss(numbers, labels) * len(labels)
        return task_loss(loss_sum, len(labels), len(whole["labels"]), len(batch["inputs"]))

    def decisions(self, batch: Batch) -> Decisions:
        labels = torch.from_numpy(batch["labels"]).to(self.device)
        return Decisions(self.model.sequence_logits(*self.packed(batch)).float(), labels, [1] * len(labels))

    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        return [Prediction(f"{value:.6g}") for value in self.outputs(rows).flatten().tolist()]
