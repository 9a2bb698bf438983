"""Pre-training of both families: the recipe becomes a model, a stream of batches and a loss."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from unmask import hub
from unmask.data.shards import Shards
from unmask.data.streams import (
    replaced_token_batches,
    replaced_token_evaluation,
    span_corruption_batches,
    span_corruption_evaluation,
)
from unmask.electra.config import ElectraConfig, generator_config
from unmask.electra.pair import ElectraPair
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.nn.ragged import Layout
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.tokenizer import T5Tokenizer
from unmask.training.checkpoints import fingerprint
from unmask.training.loop import Batch, Loss, step_seed, train
from unmask.training.recipe import PretrainRecipe

logger = logging.getLogger("unmask")

RUN = "run.json"
MODEL = "model"

#: Rows of the embedding are a multiple of this, as the published 32,128 is of 128: matrix products like it.
VOCABULARY_MULTIPLE = 64


@dataclass(frozen=True)
class Pretraining:
    """What differs between the families."""

    model: nn.Module
    batches: Any
    loss_of: Callable[[Batch, int], Loss]
    evaluate: Callable[[], Mapping[str, float]]
    save: Callable[[Path], None]


def pretrain(
    recipe: PretrainRecipe,
    shards: Shards,
    tokenizer: T5Tokenizer | ElectraTokenizer,
    directory: Path,
    *,
    device: torch.device,
) -> Path:
    """Train a model from scratch, or continue, and write it to `directory/model`.

    Returns:
        The model's directory; at once if it is already there.

    Raises:
        UserError: `directory` holds a run with other settings, or the data is too small for one batch.
    """
    model_directory = directory / MODEL
    claim_run(
        directory,
        {
            "recipe": recipe.as_table(),
            "tokenizer": tokenizer.fingerprint,
            "data": shards.fingerprint_of_content,
        },
    )
    if model_directory.is_dir():
        logger.warning("%s is finished: its model is in %s", directory, model_directory)
        return model_directory
    torch.manual_seed(step_seed(recipe.seed, "initialisation", 0))
    if isinstance(tokenizer, T5Tokenizer):
        work = _t5(recipe, shards, tokenizer, device)
    else:
        work = _electra(recipe, shards, tokenizer, device)
    train(
        work.model,
        work.batches,
        work.loss_of,
        recipe.loop_settings(),
        directory,
        label=f"pre-training {recipe.family}",
        evaluate=work.evaluate,
    )
    with hub.atomic_directory(model_directory) as temporary:
        work.save(temporary)
    return model_directory


def claim_run(directory: Path, settings: dict[str, Any]) -> None:
    """Mark a directory as the run of these settings.

    Raises:
        UserError: it is the run of others; says which differ.
    """
    path = directory / RUN
    settings = settings | {"fingerprint": fingerprint(settings)}
    if not path.is_file():
        hub.write_json(path, settings)
        return
    before = hub.read_json(path)
    if before.get("fingerprint") == settings["fingerprint"]:
        return
    differing = _differences(before, settings)
    raise UserError(
        f"{directory} holds a run with other settings ({differing}): give another --out, or delete it"
    )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    texts = []
    for key in sorted(set(before) | set(now)):
        old, new = before.get(key), now.get(key)
        if key == "fingerprint" or old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            texts.append(_differences(old, new))
        elif isinstance(old, str) and len(old) == 64:
            texts.append(f"another {key}")
        else:
            texts.append(f"{key} {old!r}, now {new!r}")
    return ", ".join(texts)


def to_tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """An int64 tensor on the device from a batch's integers."""
    return torch.from_numpy(array.astype(np.int64)).to(device, non_blocking=True)


# --- T5: span corruption --------------------------------------------------------------------------------


def _t5(
    recipe: PretrainRecipe, shards: Shards, tokenizer: T5Tokenizer, device: torch.device
) -> Pretraining:
    model = T5ForConditionalGeneration(_t5_config(recipe, tokenizer.vocab_size)).to(device)
    options = {
        "sentinel_ids": tokenizer.sentinel_ids,
        "eos_id": tokenizer.eos_token_id,
        "inputs_length": recipe.length,
        "batch_size": recipe.batch_size,
        "noise_density": recipe.chosen("noise_density", 0.15),
        "mean_span_length": recipe.chosen("mean_span_length", 3.0),
        "seed": recipe.seed,
    }
    held_out = span_corruption_evaluation(shards.validation, **options)

    def evaluate() -> dict[str, float]:
        total, count = 0.0, 0
        for batch in held_out:
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                total += float(t5_loss_sum(model, batch, device))
            count += len(batch["targets"])
        return {"loss": total / count}

    def save(directory: Path) -> None:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)

    return Pretraining(
        model,
        span_corruption_batches(shards.train, **options),
        lambda batch, step: t5_loss(model, batch, device),
        evaluate,
        save,
    )


def _t5_config(recipe: PretrainRecipe, tokens: int) -> T5Config:
    return T5Config(
        vocab_size=-(-tokens // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE,
        d_model=recipe.width,
        d_kv=recipe.chosen("head_width", recipe.width // recipe.heads),
        d_ff=recipe.feed_forward_width,
        num_layers=recipe.layers,
        num_decoder_layers=recipe.chosen("decoder_layers", recipe.layers),
        num_heads=recipe.heads,
        dropout_rate=recipe.dropout,
        feed_forward_proj=recipe.chosen("feed_forward", "gated-gelu"),
        tie_word_embeddings=recipe.chosen("tied", False),
    )


def t5_loss_sum(model: T5ForConditionalGeneration, batch: Batch, device: torch.device) -> torch.Tensor:
    """Sum of the cross-entropies of a ragged batch of inputs and targets, in nats."""
    return model.loss_sum(
        to_tensor(batch["inputs"], device),
        Layout.of(batch["input_lengths"].tolist(), device),
        to_tensor(batch["targets"], device),
        Layout.of(batch["target_lengths"].tolist(), device),
    )


def t5_loss(model: T5ForConditionalGeneration, batch: Batch, device: torch.device) -> Loss:
    """Mean cross-entropy over target tokens."""
    mean = t5_loss_sum(model, batch, device) / len(batch["targets"])
    tokens = len(batch["inputs"]) + len(batch["targets"])
    return Loss(mean, {"loss": mean.detach()}, tokens)


# --- ELECTRA: replaced-token detection ------------------------------------------------------------------


def _electra(
    recipe: PretrainRecipe, shards: Shards, tokenizer: ElectraTokenizer, device: torch.device
) -> Pretraining:
    pair = ElectraPair(*_electra_configs(recipe, tokenizer.vocab_size)).to(device)
    weight = recipe.chosen("discriminator_weight", 50.0)
    options = {
        "cls_id": tokenizer.cls_token_id,
        "sep_id": tokenizer.sep_token_id,
        "mask_id": tokenizer.mask_token_id,
        "special_ids": tokenizer.special_ids,
        "max_length": recipe.length,
        "batch_size": recipe.batch_size,
        "mask_rate": recipe.chosen("mask_rate", 0.15),
        "seed": recipe.seed,
    }
    held_out = replaced_token_evaluation(shards.validation, **options)

    def loss_of(batch: Batch, step: int) -> Loss:
        out = rtd_outcome(pair, batch, step_seed(recipe.seed, "sampling", step), device)
        return Loss(out.total(weight), out.metrics(), 2 * len(batch["tokens"]))

    def evaluate() -> dict[str, float]:
        sums: dict[str, float] = {}
        for index, batch in enumerate(held_out):
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                out = rtd_outcome(pair, batch, step_seed(recipe.seed, "held-out sampling", index), device)
            for name, value in out.counts().items():
                sums[name] = sums.get(name, 0.0) + float(value)
        return out.ratios(sums)

    def save(directory: Path) -> None:
        pair.save_pretrained(directory)
        for part in (directory, directory / "generator", directory / "discriminator"):
            tokenizer.save_pretrained(part)

    return Pretraining(pair, replaced_token_batches(shards.train, **options), loss_of, evaluate, save)
