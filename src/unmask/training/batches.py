"""From a batch of numpy arrays to a model's tensors and its loss, where several callers share it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from unmask.nn.ragged import Layout
from unmask.nn.sums import Sums
from unmask.nn.transfer import to_device
from unmask.t5.model import T5ForConditionalGeneration
from unmask.training.loop import Batch, Loss


def to_tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """An int64 tensor on the device from a batch's integers."""
    return to_device(torch.from_numpy(array.astype(np.int64)), device)


def to_layout(batch: Batch, device: torch.device, lengths: str = "lengths") -> Layout:
    """The layout of a batch's sequences from their lengths; a part of a batch knows their numbers in the whole."""
    rows = batch.get("rows")
    return Layout.of(batch[lengths].tolist(), device, None if rows is None else rows.tolist())


def t5_loss_sum(
    model: T5ForConditionalGeneration, batch: Batch, device: torch.device, *, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Sum of the cross-entropies of a ragged batch of inputs and targets, in nats."""
    return model.loss_sum(
        to_tensor(batch["inputs"], device),
        to_layout(batch, device, "input_lengths"),
        to_tensor(batch["targets"], device),
        to_layout(batch, device, "target_lengths"),
        label_smoothing=label_smoothing,
    )


@dataclass(frozen=True)
class T5Losses(Sums):
    """What a step of a T5 measured.

    Attributes:
        loss_sum: the targets' cross-entropies, float32, in nats, with gradient.
        targets: how many tokens the targets have.
    """

    loss_sum: torch.Tensor
    targets: int

    def loss(self) -> torch.Tensor:
        """Mean over target tokens."""
        return self.loss_sum / self.targets

    def metrics(self) -> dict[str, torch.Tensor]:
        return {"loss": self.loss().detach()}


def t5_losses(
    model: T5ForConditionalGeneration, batch: Batch, device: torch.device, *, label_smoothing: float = 0.0
) -> T5Losses:
    """What the model makes of a ragged batch of inputs and targets."""
    loss_sum = t5_loss_sum(model, batch, device, label_smoothing=label_smoothing)
    return T5Losses(loss_sum, len(batch["targets"]))


def t5_loss(
    model: T5ForConditionalGeneration,
    batch: Batch,
    device: torch.device,
    whole: Batch | None = None,
    *,
    label_smoothing: float = 0.0,
) -> Loss:
    """Mean cross-entropy over target tokens: of the batch, or of the whole one of which it is a part."""
    losses = t5_losses(model, batch, device, label_smoothing=label_smoothing)
    tokens = len(batch["inputs"]) + len(batch["targets"])
    return Loss(losses.out_of(targets=len((whole or batch)["targets"])).loss(), losses, tokens)


@dataclass(frozen=True)
class TaskLosses(Sums):
    """What a step of fine-tuning measured.

    Attributes:
        loss_sum: over what is counted, detached.
        hits: of these, the ones that are answered rightly; None where nothing is right or wrong.
        counted: texts, or tokens with a label.
    """

    loss_sum: torch.Tensor
    hits: torch.Tensor | None
    counted: int

    def metrics(self) -> dict[str, torch.Tensor]:
        accuracy = {} if self.hits is None else {"accuracy": self.hits / self.counted}
        return {"loss": self.loss_sum / self.counted, **accuracy}


def task_loss(
    loss_sum: torch.Tensor, counted: int, of: float, tokens: int, hits: torch.Tensor | None = None
) -> Loss:
    """A sum over `counted` texts or tokens, as a part of the mean over `of` of them, those of the whole batch."""
    return Loss(loss_sum / of, TaskLosses(loss_sum.detach(), hits, counted), tokens)
