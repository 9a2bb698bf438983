"""From a batch of numpy arrays to a model's tensors and its loss, where several callers share it."""

from __future__ import annotations

import numpy as np
import torch

from unmask.nn.ragged import Layout
from unmask.t5.model import T5ForConditionalGeneration
from unmask.training.loop import Batch, Loss


def to_tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """An int64 tensor on the device from a batch's integers."""
    return torch.from_numpy(array.astype(np.int64)).to(device, non_blocking=True)


def to_layout(lengths: np.ndarray, device: torch.device) -> Layout:
    """The layout of a batch's sequences from their lengths, (batch,)."""
    return Layout.of(lengths.tolist(), device)


def t5_loss_sum(model: T5ForConditionalGeneration, batch: Batch, device: torch.device) -> torch.Tensor:
    """Sum of the cross-entropies of a ragged batch of inputs and targets, in nats."""
    return model.loss_sum(
        to_tensor(batch["inputs"], device),
        to_layout(batch["input_lengths"], device),
        to_tensor(batch["targets"], device),
        to_layout(batch["target_lengths"], device),
    )


def t5_loss(model: T5ForConditionalGeneration, batch: Batch, device: torch.device) -> Loss:
    """Mean cross-entropy over target tokens."""
    mean = t5_loss_sum(model, batch, device) / len(batch["targets"])
    tokens = len(batch["inputs"]) + len(batch["targets"])
    return Loss(mean, {"loss": mean.detach()}, tokens)
