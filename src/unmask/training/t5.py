"""Pre-training of T5: the recipe becomes a model, a stream of batches, and the loss of its objective."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from unmask.data.pretraining import TextToText
from unmask.data.shards import Split
from unmask.data.stream import EvaluationBatches, TrainingBatches
from unmask.errors import UserError
from unmask.objectives import ul2
from unmask.objectives.text_to_text import Ids, T5Objective, denoisers
from unmask.t5 import flops
from unmask.t5.byte_tokenizer import AnyT5Tokenizer
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration
from unmask.training.batches import t5_loss, t5_losses
from unmask.training.corpora import Data, held_out_by_corpus, mixed_batches
from unmask.training.family import Pretraining
from unmask.training.loop import Batch
from unmask.training.recipe import PretrainRecipe
from unmask.training.samples import t5_sample
from unmask.training.starting import start_t5

#: Rows of the embedding are a multiple of this, as the published 32,128 is of 128: matrix products like it.
VOCABULARY_MULTIPLE = 64


def t5_pretraining(
    recipe: PretrainRecipe,
    data: Data,
    tokenizer: AnyT5Tokenizer,
    device: torch.device,
    plans: Path | None = None,
) -> Pretraining:
    """A run's parts; weights are drawn from torch's global generator.

    Raises:
        UserError: too little data.
    """
    model = (
        T5ForConditionalGeneration(model_config(recipe, tokenizer.vocab_size))
        if recipe.start_from is None
        else start_t5(recipe, tokenizer, VOCABULARY_MULTIPLE)
    ).to(device)
    held_out = held_out_batches(recipe, data, tokenizer)

    def save(directory: Path) -> None:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)

    return Pretraining(
        model,
        t5_training_batches(recipe, data, tokenizer, plans),
        lambda batch, step, whole: t5_loss(model, batch, device, whole),
        held_out,
        lambda batch, number: t5_losses(model, batch, device),
        save,
        step_flops(model.config),
        lambda: t5_sample(model, tokenizer, next(iter(held_out.values()))[0], device),
    )


def t5_training_batches(
    recipe: PretrainRecipe, data: Data, tokenizer: AnyT5Tokenizer, plans: Path | None = None
) -> TrainingBatches:
    """The stream that a recipe trains on: see `mixed_batches`."""
    return mixed_batches(recipe, data, lambda shards: _text_to_text(recipe, shards.train, tokenizer), plans)


def held_out_batches(
    recipe: PretrainRecipe, data: Data, tokenizer: AnyT5Tokenizer
) -> dict[str, EvaluationBatches]:
    """Each corpus' validation split."""
    return held_out_by_corpus(
        recipe, data, lambda shards: _text_to_text(recipe, shards.validation, tokenizer)
    )


def _text_to_text(recipe: PretrainRecipe, split: Split, tokenizer: AnyT5Tokenizer) -> TextToText:
    parts = denoisers(
        recipe.t5_objective, recipe.length, _ids(recipe.t5_objective, tokenizer), **recipe.noise_settings()
    )
    return TextToText(split, parts)


def _ids(objective: T5Objective, tokenizer: AnyT5Tokenizer) -> Ids:
    return Ids(
        eos=tokenizer.eos_token_id,
        sentinels=np.array(tokenizer.sentinel_ids, np.int32),
        random=np.setdiff1d(
            np.arange(tokenizer.vocab_size, dtype=np.int32),
            [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id],
        ),
        modes={mode: _mode_ids(mode, tokenizer) for mode in ul2.MODES} if objective == "ul2" else {},
    )


def _mode_ids(mode: str, tokenizer: AnyT5Tokenizer) -> list[int]:
    """A mode is text like any other: so a user who writes its name before a text gives what was trained on."""
    ids = tokenizer.encode(mode, add_special_tokens=False)
    if tokenizer.unk_token_id in ids:
        raise UserError(
            f"UL2's inputs begin with {mode}, which the tokenizer cannot write: use one that `unmask tokenizer "
            "train` made, it can write every text"
        )
    return ids


def step_flops(config: T5Config) -> Callable[[Batch], int]:
    """Batch → floating-point operations of a training step on it (`unmask.t5.flops`)."""

    def of(batch: Batch) -> int:
        return flops.step_flops(config, batch["input_lengths"], batch["target_lengths"])

    return of


def model_config(recipe: PretrainRecipe, tokens: int) -> T5Config:
    """Of the model that is wanted, for a tokenizer of so many tokens."""
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
