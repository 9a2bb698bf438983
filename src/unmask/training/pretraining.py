"""Pre-training of both families: the recipe becomes a model, a stream of batches and a loss."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from unmask import hub
from unmask.data.pretraining import SpanCorruption
from unmask.data.shards import Shards, Split
from unmask.data.stream import EvaluationBatches, TrainingBatches
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.tokenizer import T5Tokenizer
from unmask.training.batches import t5_loss, t5_loss_sum
from unmask.training.electra import electra_pretraining, given_weights
from unmask.training.family import Pretraining
from unmask.training.loop import step_seed, train
from unmask.training.recipe import PretrainRecipe
from unmask.training.runs import MODEL, claim_run

logger = logging.getLogger("unmask")

#: Rows of the embedding are a multiple of this, as the published 32,128 is of 128: matrix products like it.
VOCABULARY_MULTIPLE = 64


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
            **given_weights(recipe),
        },
    )
    if model_directory.is_dir():
        logger.warning("%s is finished: its model is in %s", directory, model_directory)
        return model_directory
    torch.manual_seed(step_seed(recipe.seed, "initialisation", 0))
    if isinstance(tokenizer, T5Tokenizer):
        work = _t5(recipe, shards, tokenizer, device)
    else:
        work = electra_pretraining(recipe, shards, tokenizer, device)
    train(
        work.model,
        work.batches,
        work.loss_of,
        recipe.loop_settings(),
        directory,
        label=f"pre-training {recipe.family}",
        evaluate=work.evaluate,
        diagnose=work.diagnose,
    )
    with hub.atomic_directory(model_directory) as temporary:
        work.save(temporary)
    return model_directory


# --- T5: span corruption --------------------------------------------------------------------------------


def _t5(recipe: PretrainRecipe, shards: Shards, tokenizer: T5Tokenizer, device: torch.device) -> Pretraining:
    model = T5ForConditionalGeneration(_t5_config(recipe, tokenizer.vocab_size)).to(device)
    source = _span_corruption(recipe, shards.validation, tokenizer)
    held_out = EvaluationBatches(source, batch_size=recipe.batch_size, seed=recipe.seed)

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
        t5_training_batches(recipe, shards, tokenizer),
        lambda batch, step: t5_loss(model, batch, device),
        evaluate,
        save,
    )


def t5_training_batches(recipe: PretrainRecipe, shards: Shards, tokenizer: T5Tokenizer) -> TrainingBatches:
    """The stream that a recipe trains on."""
    source = _span_corruption(recipe, shards.train, tokenizer)
    return TrainingBatches(source, batch_size=recipe.batch_size, seed=recipe.seed)


def _span_corruption(recipe: PretrainRecipe, split: Split, tokenizer: T5Tokenizer) -> SpanCorruption:
    return SpanCorruption(
        split,
        inputs_length=recipe.length,
        sentinel_ids=tokenizer.sentinel_ids,
        eos_id=tokenizer.eos_token_id,
        noise_density=recipe.chosen("noise_density", 0.15),
        mean_span=recipe.chosen("mean_span_length", 3.0),
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
