"""An ELECTRA's predictions for texts, and how they differ between two models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unmask import hub
from unmask.electra.heads import ElectraForSequenceClassification, ElectraForTokenClassification
from unmask.electra.model import ElectraForPreTraining
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.export.cost import Cost, Difference, Sample, loss_change

#: What can be measured: models whose every text or token has one prediction.
MODELS: dict[str, type[Any]] = {
    model.architecture: model
    for model in (ElectraForSequenceClassification, ElectraForTokenClassification, ElectraForPreTraining)
}
#: Texts that are read together.
_BATCH = 32


@dataclass(frozen=True, eq=False)
class Measured:
    """What one model makes of the texts.

    Attributes:
        logits: of each text: (labels,), (tokens, labels), or (tokens,) of a discriminator.
        losses: (texts,) in nats, of a classifier of texts whose labels are given; else None.
    """

    logits: list[Tensor]
    losses: NDArray[np.float64] | None


class ElectraSubject:
    """An ELECTRA that classifies texts or tokens, or a discriminator."""

    unit = "text"

    def __init__(self, directory: Path, architecture: str, sample: Sample | None) -> None:
        self.directory, self.kind = directory, MODELS[architecture]
        self.tokenizer = ElectraTokenizer.from_pretrained(directory)
        self.sample = sample
        self.labels: Tensor | None = None
        self.ids: list[list[int]] = []
        self.types: list[list[int]] = []
        config = self.kind.config_class.from_hub(hub.read_json(directory / hub.CONFIG), str(directory))
        if self.kind is not ElectraForPreTraining and len(config.labels) < 2:
            raise UserError(
                f"{directory} gives one number for each text: there are no predictions to compare"
            )
        self.several = config.problem_type == "multi_label_classification"
        if sample is not None:
            encoded = self.tokenizer(
                list(sample.sources),
                None if sample.seconds is None else list(sample.seconds),
                truncation=True,
                max_length=config.max_position_embeddings,
            )
            self.ids, self.types = encoded["input_ids"], encoded["token_type_ids"]
            self.labels = self._known_labels(sample, config.labels)

    def _known_labels(self, sample: Sample, names: tuple[str, ...]) -> Tensor | None:
        """The class of each text, where these are a classifier's."""
        if sample.targets is None or self.several or self.kind is not ElectraForSequenceClassification:
            return None
        unknown = set(sample.targets) - set(names)
        if unknown:
            raise UserError(f"the rows have the label {min(unknown)!r}, the model knows {', '.join(names)}")
        return torch.tensor([names.index(target) for target in sample.targets])

    @property
    def units(self) -> int:
        return 0 if self.labels is None else len(self.labels)

    @property
    def rows(self) -> int:
        return len(self.ids)

    def load(self, dtype: str) -> Any:
        return self.kind.from_pretrained(self.directory, dtype=dtype)

    def watch(self, model: Any) -> None:
        # Without gradients the engine would run in the place of the layers.
        with torch.enable_grad():
            for _ in self._logits(model.requires_grad_(False)):
                pass

    @torch.inference_mode()
    def measure(self, model: Any) -> Measured:
        logits = list(self._logits(model))
        losses = None
        if self.labels is not None:
            entropies = F.cross_entropy(torch.stack(logits), self.labels, reduction="none")
            losses = entropies.double().numpy()
        return Measured(logits, losses)

    def _logits(self, model: Any) -> Iterator[Tensor]:
        """Of each text, float32, padding left out."""
        whole = self.kind is ElectraForSequenceClassification
        for first in range(0, len(self.ids), _BATCH):
            rows = self.ids[first : first + _BATCH]
            found = model(input_ids=rows, token_type_ids=self.types[first : first + _BATCH])
            for row, logits in zip(rows, found.logits.float(), strict=True):
                yield logits if whole else logits[: len(row)]

    def cost(self, name: str, measured: Measured, exact: Measured) -> Cost:
        change = sum(
            float((one - other).square().sum())
            for one, other in zip(measured.logits, exact.logits, strict=True)
        )
        size = sum(float(one.square().sum()) for one in exact.logits)
        same = [
            self._predictions(one) == self._predictions(other)
            for one, other in zip(measured.logits, exact.logits, strict=True)
        ]
        loss = None
        if measured.losses is not None and exact.losses is not None:
            loss = loss_change(measured.losses, exact.losses, np.ones(len(exact.losses), np.int64))
        return Cost(name, loss, torch.cat(same).float().mean().item(), logits=(change / size) ** 0.5)

    def _predictions(self, logits: Tensor) -> Tensor:
        """One for each text or token: (n,), or (n, labels) where several can hold."""
        if self.several or self.kind is ElectraForPreTraining:
            return logits > 0
        return logits.argmax(-1).reshape(-1)

    def differences(self, measured: Measured, exact: Measured) -> list[Difference]:
        return []

    def save_tokenizer(self, directory: Path) -> None:
        self.tokenizer.save_pretrained(directory)
