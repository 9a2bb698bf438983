"""unmask's pre-training steps, as its loop runs them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import Batch, make_runner
from unmask.electra.pair import ElectraPair
from unmask.nn.ragged import Layout
from unmask.t5.model import T5ForConditionalGeneration
from unmask.training.activations import recomputed_layers
from unmask.training.allocator import kept_memory
from unmask.training.compiling import compiled_layers

#: What `unmask.training.loop` keeps up while it trains.
_KEPT = ExitStack()


def load(model: Path, precision: str, threads: int) -> Callable[..., Any]:
    torch.set_num_threads(threads)
    _KEPT.enter_context(kept_memory())
    return _electra(model, precision) if (model / "generator").is_dir() else _t5(model, precision)


def _change(model: nn.Module, precision: str) -> None:
    if "compiled" in precision.split():
        _KEPT.enter_context(compiled_layers(model))
    if "recomputed" in precision.split():
        _KEPT.enter_context(recomputed_layers(model))


def _layout(stream: Tensor) -> Layout:
    return Layout.of([stream.shape[1]] * stream.shape[0], stream.device)


def _t5(directory: Path, precision: str) -> Callable[..., Any]:
    model = T5ForConditionalGeneration.from_pretrained(directory, dtype="float32")

    def loss(batch: Batch) -> Tensor:
        inputs, targets = batch["inputs"], batch["targets"]
        layouts = _layout(inputs), _layout(targets)
        total = model.loss_sum(inputs.flatten(), layouts[0], targets.flatten(), layouts[1])
        return total / targets.numel()

    _change(model, precision)
    return make_runner([model], loss, lambda batch: [loss(batch)], precision)


def _electra(directory: Path, precision: str) -> Callable[..., Any]:
    pair = ElectraPair.from_pretrained(directory)

    def loss(batch: Batch) -> Tensor:
        streams = (batch[name].flatten() for name in ("tokens", "masked", "drawn"))
        return pair.replaced_token_step(*streams, _layout(batch["tokens"]), noise_seed=0).loss()

    def losses(batch: Batch) -> list[Tensor]:
        layout, drawn = _layout(batch["tokens"]), batch["drawn"]
        hidden = pair.generator.hidden(batch["masked"].flatten(), layout, None, at=drawn)
        targets = batch["tokens"].flatten()[drawn]
        logits = pair.discriminator.token_logits(batch["corrupted"].flatten(), layout, None).float()
        replaced = (batch["corrupted"] != batch["tokens"]).flatten().float()
        return [
            pair.generator.masked_lm_loss_sum(hidden, targets, None) / len(drawn),
            F.binary_cross_entropy_with_logits(logits, replaced),
        ]

    _change(pair, precision)
    return make_runner([pair], loss, losses, precision)
