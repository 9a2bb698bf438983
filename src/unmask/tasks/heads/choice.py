"""ELECTRA for choices: each is read behind the source and judged by one number; the highest is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from unmask.data.finetuning import Choices
from unmask.electra.config import ElectraConfig
from unmask.electra.heads import ElectraForMultipleChoice
from unmask.tasks.heads.head import ABSENT, Decisions, ElectraTaskModel
from unmask.tasks.kinds.kind import Prediction, Row
from unmask.tasks.task import Task
from unmask.training.batches import task_loss, to_layout, to_tensor
from unmask.training.loop import Batch, Loss


class ChoiceModel(ElectraTaskModel):
    """One of a row's texts, by cross-entropy over them."""

    model_class = ElectraForMultipleChoice
    model: ElectraForMultipleChoice

    @classmethod
    def settings(cls, task: Task, rows: Sequence[Row]) -> dict[str, Any]:
        return {"labels": ElectraConfig.labels}

    def examples(self, rows: Sequence[Row]) -> Choices:
        return self._encoded(rows, [int(row.target) for row in rows])

    def _encoded(self, rows: Sequence[Row], labels: Sequence[int]) -> Choices:
        inputs, types = list[list[list[int]]](), list[list[list[int]]]()
        for row in rows:
            source = " ".join(self.task.segment_texts(row.sources))
            batch = self.tokenizer(
                [source] * len(row.choices), list(row.choices), truncation=True, max_length=self.limit
            )
            inputs.append(batch["input_ids"])
            types.append(batch["token_type_ids"])
        return Choices(inputs, types, labels)

    def _logits(self, batch: Batch) -> torch.Tensor:
        lengths = batch["choice_lengths"]
        there = lengths > 0
        # Each text's number in the whole batch.
        examples = np.asarray(batch.get("rows", np.arange(len(lengths))))
        numbers = examples[:, None] * lengths.shape[1] + np.arange(lengths.shape[1])
        flat = self.model.choice_logits(
            to_tensor(batch["inputs"], self.device),
            to_layout({"lengths": lengths[there], "rows": numbers[there]}, self.device),
            to_tensor(batch["token_types"], self.device),
        )
        return self.model.by_example(flat, there.sum(1).tolist()).float()

    def loss(self, batch: Batch, step: int, whole: Batch) -> Loss:
        logits = self._logits(batch)
        labels = to_tensor(batch["labels"], self.device)
        loss_sum = nn.functional.cross_entropy(logits, labels, reduction="sum")
        hits = (logits.argmax(-1) == labels).sum()
        return task_loss(loss_sum, len(labels), len(whole["labels"]), len(batch["inputs"]), hits)

    def decisions(self, batch: Batch) -> Decisions:
        labels = to_tensor(batch["labels"], self.device)
        return Decisions(self._logits(batch).clamp(min=ABSENT), labels, [1] * len(labels))

    @torch.inference_mode()
    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        answers = [Prediction("")] * len(rows)
        for numbers, batch in self.batches(self._encoded(rows, [0] * len(rows))):
            for number, row in zip(numbers, self._logits(batch).softmax(-1), strict=True):
                best = int(row.argmax())
                answers[number] = Prediction(str(best), float(row[best]))
        return answers
