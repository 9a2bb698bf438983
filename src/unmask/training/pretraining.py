"""Pre-training of both families: the recipe becomes a model, a stream of batches and a loss."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unmask import hub
from unmask.data.pretraining import ReplacedTokens, SpanCorruption
from unmask.data.shards import Shards, Split
from unmask.data.stream import EvaluationBatches, TrainingBatches
from unmask.electra.config import ElectraConfig, generator_config
from unmask.electra.pair import (
    DISCRIMINATOR,
    DISCRIMINATOR_WEIGHT,
    GENERATOR,
    ElectraPair,
    ReplacedTokenLosses,
)
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.tokenizer import T5Tokenizer
from unmask.training.batches import t5_loss, t5_loss_sum, to_layout, to_tensor
from unmask.training.loop import Batch, Loss, step_seed, train
from unmask.training.recipe import PretrainRecipe
from unmask.training.runs import MODEL, claim_run

logger = logging.getLogger("unmask")

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
            "data": shards.checksum,
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


# --- T5: span corruption --------------------------------------------------------------------------------


def _t5(recipe: PretrainRecipe, shards: Shards, tokenizer: T5Tokenizer, device: torch.device) -> Pretraining:
    model = T5ForConditionalGeneration(_t5_config(recipe, tokenizer.vocab_size)).to(device)

    def source(split: Split) -> SpanCorruption:
        return SpanCorruption(
            split,
            inputs_length=recipe.length,
            sentinel_ids=tokenizer.sentinel_ids,
            eos_id=tokenizer.eos_token_id,
            noise_density=recipe.chosen("noise_density", 0.15),
            mean_span=recipe.chosen("mean_span_length", 3.0),
        )

    held_out = EvaluationBatches(source(shards.validation), batch_size=recipe.batch_size, seed=recipe.seed)

    def evaluate() -> dict[str, float]:
        total, count = 0.0, 0
        for batch in held_out:
            total += float(t5_loss_sum(model, batch, device))
            count += len(batch["targets"])
        return {"loss": total / count}

    def save(directory: Path) -> None:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)

    return Pretraining(
        model,
        TrainingBatches(source(shards.train), batch_size=recipe.batch_size, seed=recipe.seed),
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


# --- ELECTRA: replaced-token detection ------------------------------------------------------------------


def _electra(
    recipe: PretrainRecipe, shards: Shards, tokenizer: ElectraTokenizer, device: torch.device
) -> Pretraining:
    config = _electra_config(recipe, tokenizer)
    generator = generator_config(config, recipe.chosen("generator_share", 0.25))
    pair = ElectraPair.fresh(generator, config).to(device)
    weight = recipe.chosen("discriminator_weight", DISCRIMINATOR_WEIGHT)

    def source(split: Split) -> ReplacedTokens:
        return ReplacedTokens(
            split,
            max_length=recipe.length,
            cls_id=tokenizer.cls_token_id,
            sep_id=tokenizer.sep_token_id,
            mask_id=tokenizer.mask_token_id,
            special_ids=sorted(tokenizer.special_ids),
            mask_rate=recipe.chosen("mask_rate", 0.15),
        )

    held_out = EvaluationBatches(source(shards.validation), batch_size=recipe.batch_size, seed=recipe.seed)

    def loss_of(batch: Batch, step: int) -> Loss:
        out = _rtd_step(pair, batch, step_seed(recipe.seed, "sampling", step), device)
        return Loss(out.loss(weight), out.metrics(), 2 * len(batch["tokens"]))

    def evaluate() -> dict[str, float]:
        seeds = (step_seed(recipe.seed, "held-out sampling", k) for k in range(len(held_out)))
        steps = [_rtd_step(pair, batch, seed, device) for batch, seed in zip(held_out, seeds, strict=True)]
        total = ReplacedTokenLosses.joined(steps)
        return {name: float(value) for name, value in total.metrics().items()}

    def save(directory: Path) -> None:
        pair.save_pretrained(directory)
        for part in (directory, directory / GENERATOR, directory / DISCRIMINATOR):
            tokenizer.save_pretrained(part)

    return Pretraining(
        pair,
        TrainingBatches(source(shards.train), batch_size=recipe.batch_size, seed=recipe.seed),
        loss_of,
        evaluate,
        save,
    )


def _electra_config(recipe: PretrainRecipe, tokenizer: ElectraTokenizer) -> ElectraConfig:
    return ElectraConfig(
        vocab_size=tokenizer.vocab_size,
        embedding_size=recipe.chosen("embedding_width", recipe.width),
        hidden_size=recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.feed_forward_width,
        hidden_dropout_prob=recipe.dropout,
        attention_probs_dropout_prob=recipe.dropout,
        max_position_embeddings=recipe.length,
        pad_token_id=tokenizer.pad_token_id,
    )


def _rtd_step(pair: ElectraPair, batch: Batch, seed: int, device: torch.device) -> ReplacedTokenLosses:
    return pair.replaced_token_step(
        to_tensor(batch["tokens"], device),
        to_tensor(batch["masked"], device),
        to_tensor(batch["drawn"], device),
        to_layout(batch["lengths"], device),
        to_tensor(batch["token_types"], device),
        noise_seed=seed,
    )
