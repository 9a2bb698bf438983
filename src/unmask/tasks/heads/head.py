"""What ELECTRA's heads have in common: how one is loaded, and how rows go through it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from unmask import hub
from unmask.electra.model import ElectraBackbone
from unmask.electra.pair import DISCRIMINATOR
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.tasks.answering import TRAINED
from unmask.tasks.kinds.kind import Prediction, Row
from unmask.tasks.task import Task
from unmask.training.batches import to_layout, to_tensor
from unmask.training.loop import Batch, Loss

#: The logit of an answer that is not there: no probability, and a finite difference from any other.
ABSENT = -1e9

#: Examples that are predicted together, of similar length.
PREDICTION_BATCH = 64


@dataclass(frozen=True)
class Decisions:
    """What a head decides in a batch: each time between some answers, of which one is right.

    Attributes:
        logits: (decisions, answers) float32, `ABSENT` where one has fewer answers; (rows, 1) of numbers.
        targets: (decisions,) int64, the right one; float32 of numbers.
        counts: of each example of the batch, how many decisions are its own; they lie one behind the other.
    """

    logits: torch.Tensor
    targets: torch.Tensor
    counts: Sequence[int]


class ElectraTaskModel(ABC):
    """An ELECTRA encoder with the head for a kind of task; of a pair, the discriminator's encoder.

    Attributes:
        model_class: the encoder with its head.
        smooths: its targets are labels, whose probability can be spread (`label_smoothing`).
        labels: names of the head's outputs.
        label_smoothing: share of a label's probability that is spread over all of them.
        class_weights: (labels,) what each label counts; None: 1.
    """

    model_class: ClassVar[type[Any]]
    smooths: ClassVar[bool] = False
    label_smoothing: float = 0.0
    class_weights: torch.Tensor | None = None

    def __init__(
        self, task: Task, model: ElectraBackbone, tokenizer: ElectraTokenizer, device: torch.device
    ) -> None:
        self.task, self.tokenizer, self.device = task, tokenizer, device
        self.model = model
        self.labels: tuple[str, ...] = model.config.labels

    @classmethod
    def load(
        cls,
        task: Task,
        directory: Path,
        *,
        rows: Sequence[Row] | None,
        fresh_weights: bool,
        device: torch.device,
    ) -> Self:
        """Args:
        rows: training rows, which decide a new head's outputs; None: the head that is there.

        Raises:
            UserError: there is none.
        """
        tokenizer = ElectraTokenizer.from_pretrained(directory)
        if (directory / DISCRIMINATOR).is_dir():
            directory = directory / DISCRIMINATOR
        if rows is None:
            cls._check_head(task, directory)
            model = cls.model_class.from_pretrained(directory, device=device)
        else:
            model = cls.model_class.from_pretrained(
                directory, device=device, dtype=TRAINED, **cls.settings(task, rows)
            )
        if fresh_weights:
            model.initialise()
        return cls(task, model, tokenizer, device)

    @classmethod
    def settings(cls, task: Task, rows: Sequence[Row]) -> dict[str, Any]:
        """Fields of the config of a model that will learn the task."""
        return {"labels": task.its_kind.labels(task, rows)}

    @classmethod
    def _check_head(cls, task: Task, directory: Path) -> None:
        # Without this its outputs would be those of a head that was drawn just now.
        if hub.is_adapter(directory):
            return
        named = hub.read_json(directory / hub.CONFIG).get("architectures") or ()
        if cls.model_class.architecture not in named:
            raise UserError(
                f"{directory} has no head for {task.kind} (it is {' and '.join(named) or 'of no kind that it names'}): "
                f"fine-tune it on task {task.name!r} first (unmask finetune)"
            )

    @property
    def limit(self) -> int:
        """Tokens that are read together."""
        return min(self.task.max_source_length, self.model.config.max_position_embeddings)

    @abstractmethod
    def examples(self, rows: Sequence[Row]) -> Any:
        """The rows as a source of batches (`unmask.data.finetuning`)."""

    @abstractmethod
    def loss(self, batch: Batch, step: int, whole: Batch) -> Loss: ...

    @abstractmethod
    def decisions(self, batch: Batch) -> Decisions:
        """What the head makes of a batch, in the one form that a teacher hands on (`unmask.tasks.distillation`)."""

    @abstractmethod
    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        """The answers for rows, in their order."""

    def segments(self, rows: Sequence[Row]) -> tuple[list[str], list[str] | None]:
        """The first texts of rows, and the second ones where there are two."""
        texts = [self.task.segment_texts(row.sources) for row in rows]
        return [text[0] for text in texts], [text[1] for text in texts] if len(texts[0]) == 2 else None

    def weigh(self, labels: Sequence[str]) -> None:
        """Weigh each label by all / (labels · those that are it), as scikit-learn's "balanced"; one that is never seen
        by 1.

        Args:
            labels: of all training rows, or of all their words.
        """
        counts = Counter(labels)
        weights = [
            len(labels) / (len(self.labels) * counts[label]) if counts[label] else 1.0
            for label in self.labels
        ]
        self.class_weights = torch.tensor(weights, device=self.device)

    def weight_of(self, labels: np.ndarray) -> float:
        """What labels (n,) count together: where classes weigh differently a mean is the weighted one."""
        if self.class_weights is None:
            return len(labels)
        return float(self.class_weights.cpu()[torch.from_numpy(labels.astype(np.int64))].sum())

    def packed(self, batch: Batch) -> tuple[torch.Tensor, Any, torch.Tensor]:
        """Ids (total,), layout and segments (total,) of a batch."""
        return (
            to_tensor(batch["inputs"], self.device),
            to_layout(batch, self.device),
            to_tensor(batch["token_types"], self.device),
        )

    @staticmethod
    def batches(source: Any) -> Iterator[tuple[list[int], Batch]]:
        """All examples of a source in batches of similar length, each with their numbers."""
        order = np.argsort(source.lengths(np.arange(len(source))), kind="stable")
        for first in range(0, len(order), PREDICTION_BATCH):
            numbers = order[first : first + PREDICTION_BATCH]
            yield numbers.tolist(), source.fetch(numbers)

    def save_pretrained(self, directory: Path) -> None:
        self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
