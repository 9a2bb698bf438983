"""Transformers' models in a plain PyTorch loop; ELECTRA's two halves as electra_pytorch joins them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from training import Batch, make_runner


def load(model: Path, precision: str, threads: int) -> Callable[..., Any]:
    torch.set_num_threads(threads)
    return _electra(model, precision) if (model / "generator").is_dir() else _t5(model, precision)


def _maybe_compiled(model: Any, precision: str) -> Any:
    return torch.compile(model) if "compiled" in precision.split() else model


def _t5(directory: Path, precision: str) -> Callable[..., Any]:
    model = transformers.T5ForConditionalGeneration.from_pretrained(directory)
    call = _maybe_compiled(model, precision)

    def loss(batch: Batch) -> Tensor:
        return call(input_ids=batch["inputs"], labels=batch["targets"], use_cache=False).loss

    return make_runner([model], loss, lambda batch: [loss(batch)], precision)


def _electra(directory: Path, precision: str) -> Callable[..., Any]:
    generator = transformers.ElectraForMaskedLM.from_pretrained(directory / "generator")
    discriminator = transformers.ElectraForPreTraining.from_pretrained(directory / "discriminator")
    discriminator.electra.embeddings = generator.electra.embeddings
    fill, judge = _maybe_compiled(generator, precision), _maybe_compiled(discriminator, precision)

    def generator_loss(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        drawn = batch["drawn"]
        logits = fill(input_ids=batch["masked"]).logits.flatten(0, 1)[drawn]
        targets = batch["tokens"].flatten()[drawn]
        return logits, targets, F.cross_entropy(logits.float(), targets)

    def discriminator_loss(batch: Batch, corrupted: Tensor) -> Tensor:
        replaced = (corrupted != batch["tokens"]).float()
        return F.binary_cross_entropy_with_logits(judge(input_ids=corrupted).logits.float(), replaced)

    def loss(batch: Batch) -> Tensor:
        logits, _, first = generator_loss(batch)
        with torch.no_grad():
            noise = -torch.log(-torch.log(torch.rand(logits.shape, device=logits.device)))
            sampled = (logits.float() + noise).argmax(-1)
            corrupted = batch["tokens"].flatten().index_copy(0, batch["drawn"], sampled)
        return first + 50.0 * discriminator_loss(batch, corrupted.view_as(batch["tokens"]))

    def losses(batch: Batch) -> list[Tensor]:
        return [generator_loss(batch)[2], discriminator_loss(batch, batch["corrupted"])]

    return make_runner([generator, discriminator], loss, losses, precision)
