"""Transformers' models as one module a family, on batches that are padded to their longest example."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

Tensors = dict[str, Tensor]


def padded(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a collator makes of a ragged batch: (batch, longest) int64 each."""

    def rows(stream: np.ndarray, lengths: np.ndarray, padding: int = 0) -> np.ndarray:
        kept = np.arange(lengths.max()) < lengths[:, None]
        full = np.full(kept.shape, padding, np.int64)
        full[kept] = stream
        return full

    if "inputs" in batch:
        return {
            "input_ids": rows(batch["inputs"], batch["input_lengths"]),
            "attention_mask": rows(np.ones_like(batch["inputs"]), batch["input_lengths"]),
            "labels": rows(batch["targets"], batch["target_lengths"], -100),
        }
    lengths, is_drawn = batch["lengths"], np.zeros(len(batch["tokens"]), np.int64)
    is_drawn[batch["drawn"]] = 1
    return {
        "tokens": rows(batch["tokens"], lengths),
        "masked": rows(batch["masked"], lengths),
        "drawn": rows(is_drawn, lengths),
        "attention_mask": rows(np.ones_like(is_drawn), lengths),
        "token_type_ids": rows(batch["token_types"], lengths),
    }


def on_device(batch: Mapping[str, np.ndarray], device: torch.device) -> Tensors:
    return {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in batch.items()}


def token_count(batch: Mapping[str, np.ndarray]) -> int:
    """Real tokens of a padded batch: T5's inputs and targets, ELECTRA's sequences."""
    count = batch["attention_mask"].sum()
    return int(count + (batch["labels"] >= 0).sum() if "labels" in batch else count)


class T5(nn.Module):
    def __init__(self, directory: Path, *, compiled: bool) -> None:
        super().__init__()
        self.model = transformers.T5ForConditionalGeneration.from_pretrained(directory)
        self.call = [torch.compile(self.model) if compiled else self.model]

    def losses(self, batch: Tensors, noise: torch.Generator | None = None) -> Tensors:
        """The mean cross-entropy of the targets."""
        return {"loss": self.call[0](**batch, use_cache=False).loss}

    def save(self, directory: Path) -> None:
        self.model.save_pretrained(directory)


class Electra(nn.Module):
    """Generator and discriminator with one set of embeddings, as electra_pytorch joins them."""

    def __init__(self, directory: Path, *, compiled: bool, share: bool = True) -> None:
        super().__init__()
        self.generator = transformers.ElectraForMaskedLM.from_pretrained(directory / "generator")
        self.discriminator = transformers.ElectraForPreTraining.from_pretrained(directory / "discriminator")
        if share:
            self.discriminator.electra.embeddings = self.generator.electra.embeddings
        models = (self.generator, self.discriminator)
        self.calls = [torch.compile(model) if compiled else model for model in models]

    def losses(self, batch: Tensors, noise: torch.Generator | None = None) -> Tensors:
        """Both halves' means and their weighted sum."""
        corrupted, generator_loss = self.fill(batch, noise)
        discriminator_loss = self.judge(batch, corrupted)
        return {
            "loss": generator_loss + 50.0 * discriminator_loss,
            "generator_loss": generator_loss,
            "discriminator_loss": discriminator_loss,
        }

    def fill(self, batch: Tensors, noise: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """(batch, longest) ids with the generator's samples, and its mean loss at the drawn places."""
        tokens, drawn = batch["tokens"], batch["drawn"].bool()
        sides = {name: batch[name] for name in ("attention_mask", "token_type_ids")}
        logits = self.calls[0](input_ids=batch["masked"], **sides).logits[drawn].float()
        with torch.no_grad():
            uniform = torch.rand(logits.shape, device=tokens.device, generator=noise)
            sampled = (logits - torch.log(-torch.log(uniform))).argmax(-1)
        return tokens.masked_scatter(drawn, sampled), F.cross_entropy(logits, tokens[drawn])

    def judge(self, batch: Tensors, corrupted: Tensor) -> Tensor:
        """The discriminator's mean loss over real tokens."""
        sides = {name: batch[name] for name in ("attention_mask", "token_type_ids")}
        logits = self.calls[1](input_ids=corrupted, **sides).logits.float()
        real = batch["attention_mask"].bool()
        return F.binary_cross_entropy_with_logits(logits[real], (corrupted != batch["tokens"])[real].float())

    def save(self, directory: Path) -> None:
        self.generator.save_pretrained(directory / "generator")
        self.discriminator.save_pretrained(directory / "discriminator")
