"""ELECTRA for answers in a context: windows, and the first and last token of an answer in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from unmask.data.finetuning import Labelled
from unmask.electra.answering import Window, answer, windows
from unmask.electra.config import ElectraConfig
from unmask.electra.heads import ElectraForQuestionAnswering
from unmask.tasks.heads.head import ABSENT, Decisions, ElectraTaskModel
from unmask.tasks.kinds.kind import Prediction, Row
from unmask.tasks.kinds.question_answering import QuestionAnswering
from unmask.tasks.task import Task
from unmask.training.batches import task_loss, to_tensor
from unmask.training.loop import Batch, Loss


class SpanModel(ElectraTaskModel):
    """The first and the last token of the answer; both are [CLS] in a window that does not have it (BERT's
    `run_squad.py`)."""

    model_class = ElectraForQuestionAnswering
    model: ElectraForQuestionAnswering

    @classmethod
    def settings(cls, task: Task, rows: Sequence[Row]) -> dict[str, Any]:
        return {"labels": ElectraConfig.labels}

    @property
    def stride(self) -> int:
        # A question takes a part of the window: the next window must not begin behind its end.
        return max(1, min(self.task.stride, self.limit - self.task.max_question - 3))

    def examples(self, rows: Sequence[Row]) -> Labelled:
        """All windows of the rows' contexts.

        Raises:
            UserError: an answer that is not in its context, or none where the task says that there always is one.
        """
        kind = self.task.its_kind
        assert isinstance(kind, QuestionAnswering)
        inputs, targets, types = list[list[int]](), list[tuple[int, int]](), list[list[int]]()
        for row in rows:
            span = kind.span(row)
            for window in self._windows(row):
                inputs.append(window.ids)
                types.append(window.types)
                targets.append((0, 0) if span is None else window.target(*span))
        return Labelled(inputs, targets, token_types=types)

    def _windows(self, row: Row) -> list[Window]:
        question, context = row.sources
        return windows(
            self.tokenizer,
            question,
            context,
            max_length=self.limit,
            stride=self.stride,
            max_question=self.task.max_question,
        )

    def loss(self, batch: Batch, step: int, whole: Batch) -> Loss:
        labels = to_tensor(batch["labels"], self.device)
        loss_sum = self.model.span_loss(*self.packed(batch), labels) * len(labels)
        return task_loss(loss_sum, len(labels), len(whole["labels"]), len(batch["inputs"]))

    def decisions(self, batch: Batch) -> Decisions:
        ids, layout, types = self.packed(batch)
        seen = layout.pad(torch.ones_like(ids)) != 0
        logits = layout.pad(self.model.span_logits(ids, layout, types)).float()
        logits = logits.masked_fill(~seen[..., None], ABSENT)
        labels = to_tensor(batch["labels"], self.device)
        return Decisions(logits.transpose(1, 2).flatten(0, 1), labels.flatten(), [2] * len(labels))

    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        found = answer(
            self.model,
            self.tokenizer,
            [row.sources[0] for row in rows],
            [row.sources[1] for row in rows],
            max_length=self.limit,
            stride=self.stride,
            max_question=self.task.max_question,
            max_answer=self.task.max_answer,
            null_threshold=0.0 if self.task.unanswerable else None,
        )
        return [Prediction(best[0].text, best[0].probability) for best in found]
