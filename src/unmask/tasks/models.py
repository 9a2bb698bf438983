"""A task's model, whichever family it is of: how it is loaded, trained on rows and asked for answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import nn

from unmask import hub
from unmask.data.finetuning import Labelled, Pairs
from unmask.electra.heads import ElectraForSequenceClassification
from unmask.electra.pair import DISCRIMINATOR, GENERATOR
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.t5.byte_tokenizer import AnyT5Tokenizer, load_tokenizer
from unmask.t5.config import KINDS
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.writing import encode_with_end, write_texts
from unmask.tasks.answering import TRAINED, ElectraAnswerModel
from unmask.tasks.rows import Row, labels_of
from unmask.tasks.task import Task
from unmask.training.batches import t5_loss, to_layout, to_tensor
from unmask.training.loop import Batch, Loss

#: Rows that are predicted together, of similar length.
PREDICTION_BATCH = 64


class TaskModel(Protocol):
    """A model in the form in which a task trains it and asks it."""

    @property
    def model(self) -> nn.Module: ...

    def examples(self, rows: Sequence[Row]) -> Any:
        """The rows as a source of batches (`unmask.data.finetuning`)."""

    def loss(self, batch: Batch, step: int) -> Loss: ...

    def predict(self, sources: Sequence[tuple[str, ...]]) -> list[str]:
        """The answers for rows, in their order."""

    def save_pretrained(self, directory: Path) -> None: ...


def load_for_training(
    task: Task,
    name_or_path: str,
    rows: Sequence[Row],
    *,
    fresh_weights: bool,
    device: torch.device,
    seed: int = 0,
) -> TaskModel:
    """The model that will learn a task.

    Args:
        rows: the training rows, which decide a classifier's labels and how long an ELECTRA's answers can be.
        fresh_weights: keep the model's shape and tokenizer, but draw its weights anew: what the task alone
            teaches, without pre-training.
        seed: of draws that a model makes in its loss.

    Raises:
        UserError: no such model, or one whose family cannot do this kind of task.
    """
    directory = hub.find_model(name_or_path)
    if family_of(directory) == "t5":
        return T5TaskModel.load(task, directory, fresh_weights=fresh_weights, device=device, dtype=TRAINED)
    if task.kind == "text-to-text":
        return ElectraAnswerModel.for_training(
            task, directory, rows, fresh_weights=fresh_weights, seed=seed, device=device
        )
    return ElectraTaskModel.load(
        task, directory, labels=labels_of(rows), fresh_weights=fresh_weights, device=device
    )


def load_for_prediction(
    task: Task, name_or_path: str | os.PathLike[str], *, device: torch.device
) -> TaskModel:
    """A model that has learnt a task.

    Raises:
        UserError: no such model, or one whose family cannot do this kind of task.
    """
    directory = hub.find_model(name_or_path)
    if family_of(directory) == "t5":
        return T5TaskModel.load(task, directory, fresh_weights=False, device=device)
    if task.kind == "text-to-text":
        return ElectraAnswerModel.for_prediction(task, directory, device=device)
    return ElectraTaskModel.load(task, directory, labels=None, fresh_weights=False, device=device)


def family_of(directory: Path) -> str:
    """ "t5" or "electra", by what a model directory holds.

    Raises:
        UserError: another family.
    """
    if (directory / DISCRIMINATOR).is_dir() or (directory / GENERATOR).is_dir():
        return "electra"
    kind = hub.read_json(hub.base_of(directory) / hub.CONFIG).get("model_type")
    if kind in KINDS:
        return "t5"
    if kind not in ("electra", "bert"):  # BERT's layout is an ELECTRA encoder's
        raise UserError(f"{directory} holds a model of type {kind!r}: only t5 and electra can be used")
    return "electra"


class T5TaskModel:
    """T5: the source as text in, the target as text out."""

    def __init__(
        self, task: Task, model: T5ForConditionalGeneration, tokenizer: AnyT5Tokenizer, device: torch.device
    ) -> None:
        if task.kind != "text-to-text":
            raise UserError(
                f"task {task.name!r} is {task.kind}: use an ELECTRA model, or make it text-to-text for T5"
            )
        self.task, self.tokenizer, self.device = task, tokenizer, device
        self.model = model

    @classmethod
    def load(
        cls,
        task: Task,
        directory: Path,
        *,
        fresh_weights: bool,
        device: torch.device,
        dtype: str | None = None,
    ) -> Self:
        model = T5ForConditionalGeneration.from_pretrained(directory, device=device, dtype=dtype)
        if fresh_weights:
            model.initialise()
        return cls(task, model, load_tokenizer(directory), device)

    def examples(self, rows: Sequence[Row]) -> Pairs:
        return Pairs(
            self._encode([self.task.text(row.sources) for row in rows], self.task.max_source_length),
            self._encode([row.target for row in rows], self.task.max_target_length),
        )

    def _encode(self, texts: Sequence[str], limit: int) -> list[list[int]]:
        return encode_with_end(self.tokenizer, texts, limit)

    def loss(self, batch: Batch, step: int) -> Loss:
        return t5_loss(self.model, batch, self.device)

    def predict(self, sources: Sequence[tuple[str, ...]]) -> list[str]:
        return write_texts(
            self.model,
            self.tokenizer,
            [self.task.text(row) for row in sources],
            max_new_tokens=self.task.max_target_length,
            max_source_length=self.task.max_source_length,
        )

    def save_pretrained(self, directory: Path) -> None:
        self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)


class ElectraTaskModel:
    """ELECTRA: a classification head on the encoder; of a pair, the discriminator's encoder."""

    def __init__(
        self,
        task: Task,
        model: ElectraForSequenceClassification,
        tokenizer: ElectraTokenizer,
        device: torch.device,
    ) -> None:
        self.task, self.tokenizer, self.device = task, tokenizer, device
        self.model = model
        self.labels = model.config.labels

    @classmethod
    def load(
        cls,
        task: Task,
        directory: Path,
        *,
        labels: Sequence[str] | None,
        fresh_weights: bool,
        device: torch.device,
    ) -> Self:
        """Args:
        labels: names of a new head's outputs; None: the head that is there.
        """
        tokenizer = ElectraTokenizer.from_pretrained(directory)
        if (directory / DISCRIMINATOR).is_dir():
            directory = directory / DISCRIMINATOR
        if labels is None:
            model = ElectraForSequenceClassification.from_pretrained(directory, device=device)
        else:
            model = ElectraForSequenceClassification.from_pretrained(
                directory, device=device, dtype=TRAINED, labels=tuple(labels)
            )
        if fresh_weights:
            model.initialise()
        return cls(task, model, tokenizer, device)

    def examples(self, rows: Sequence[Row]) -> Labelled:
        ids, types = self._encode([row.sources for row in rows])
        number = {label: index for index, label in enumerate(self.labels)}
        return Labelled(ids, [number[row.target] for row in rows], token_types=types)

    def _encode(self, sources: Sequence[tuple[str, ...]]) -> tuple[list[list[int]], list[list[int]]]:
        if len(self.task.source) > 2:
            raise UserError(
                f"task {self.task.name!r} has {len(self.task.source)} source columns: ELECTRA reads one or two"
            )
        limit = min(self.task.max_source_length, self.model.config.max_position_embeddings)
        seconds = [row[1] for row in sources] if len(self.task.source) == 2 else None
        batch = self.tokenizer([row[0] for row in sources], seconds, truncation=True, max_length=limit)
        return batch["input_ids"], batch["token_type_ids"]

    def loss(self, batch: Batch, step: int) -> Loss:
        logits = self._logits(batch)
        labels = to_tensor(batch["labels"], self.device)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        accuracy = (logits.argmax(-1) == labels).float().mean()
        return Loss(loss, {"loss": loss.detach(), "accuracy": accuracy}, len(batch["inputs"]))

    def _logits(self, batch: Batch) -> torch.Tensor:
        return self.model.sequence_logits(
            to_tensor(batch["inputs"], self.device),
            to_layout(batch["lengths"], self.device),
            to_tensor(batch["token_types"], self.device),
        )

    @torch.inference_mode()
    def predict(self, sources: Sequence[tuple[str, ...]]) -> list[str]:
        ids, types = self._encode(sources)
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        source = Labelled(
            [ids[row] for row in order], [0] * len(order), token_types=[types[row] for row in order]
        )
        answers = [""] * len(order)
        for first in range(0, len(order), PREDICTION_BATCH):
            rows = order[first : first + PREDICTION_BATCH]
            batch = source.fetch(np.arange(first, first + len(rows)))
            for row, label in zip(rows, self._logits(batch).argmax(-1).tolist(), strict=True):
                answers[row] = self.labels[label]
        return answers

    def save_pretrained(self, directory: Path) -> None:
        self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
