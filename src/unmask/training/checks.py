"""What is likely wrong with a run before it begins. Each finding names the value and the way out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from unmask.data.shards import Shards, Split
from unmask.training.recipe import PretrainRecipe

#: Peak learning rates that are usual, by optimiser. Relative to a tensor's size: T5's 0.01 (arXiv 1910.10683, 3.1.2),
#: nanoT5's 0.02 (arXiv 2309.02373). Absolute: ELECTRA's 2e-4 to 5e-4 (arXiv 2003.10555, table 6), more for tiny models.
RATES = {
    "adafactor": (1e-3, 1e-1),
    "scaled-adamw": (1e-3, 1e-1),
    "adamw": (1e-5, 5e-3),
    "electra-adam": (1e-5, 5e-3),
    "muon": (1e-4, 2e-2),
}
#: Text that is read more often teaches hardly anything new (arXiv 2305.16264: 4 times is nearly as good as new text, 40
#: times is worth nothing more).
EPOCHS = 40
#: A warm-up above this share of the steps leaves little of the peak.
WARMUP_SHARE = 0.3
#: Of the tokens that are looked at for unknown ones.
LOOKED_AT = 5_000_000
UNKNOWN_SHARE = 0.005
#: Characters a token: English has about 4 with 8,000 pieces and more; Chinese, whose words are short, 1.5.
CHARACTERS = 1.3
#: Held-out tokens below which a held-out loss is noise.
HELD_OUT = 10_000


def check_recipe(recipe: PretrainRecipe) -> Iterator[str]:
    """Of the settings alone."""
    yield from _check_rate(recipe)
    yield from _check_schedule(recipe)
    yield from _check_objective(recipe)
    if not recipe.checkpoint_every:
        yield "checkpoint_every is 0: a run that is stopped starts again; give it the steps of some minutes"
    if not recipe.evaluate_every:
        yield "evaluate_every is 0: there will be two held-out losses and no curve; give it a tenth of the steps"
    if recipe.ema_decay and 1 / (1 - recipe.ema_decay) > recipe.steps / 5:
        yield (
            f"ema_decay is {recipe.ema_decay}: it averages over {1 / (1 - recipe.ema_decay):,.0f} of {recipe.steps:,} "
            f"steps; {1 - 10 / recipe.steps:.3g} averages over a tenth"
        )


def _check_rate(recipe: PretrainRecipe) -> Iterator[str]:
    low, high = RATES[recipe.optimiser]
    rate = recipe.learning_rate
    if not low <= rate <= high:
        yield (
            f"learning_rate is {rate:g}, {'above' if rate > high else 'below'} what is usual for {recipe.optimiser}, "
            f"{low:g} to {high:g}: try {high / 5 if rate > high else low * 5:g}"
        )
    if recipe.family == "t5" and recipe.optimiser in ("adamw", "electra-adam") and rate > 1e-3:
        yield (
            f"optimiser is {recipe.optimiser} at {rate:g}: one absolute rate diverges on T5, whose matrices start at "
            "unlike scales (arXiv 2309.02373); choose scaled-adamw or adafactor"
        )
    if recipe.optimiser in ("adafactor", "scaled-adamw") and recipe.weight_decay > 0.1:
        yield (
            f"weight_decay is {recipe.weight_decay:g} with {recipe.optimiser}, whose rate is relative to each tensor's "
            "size and high: set it to 0"
        )
    if recipe.clip_norm == 0 and recipe.optimiser not in ("adafactor", "muon"):
        yield f"clip_norm is 0 and {recipe.optimiser} does not clip by itself: 1 is usual"


def _check_schedule(recipe: PretrainRecipe) -> Iterator[str]:
    warmup, steps = recipe.warmup_steps, recipe.steps
    if warmup >= steps:
        yield (
            f"warmup_steps is {warmup:,} and the run has {steps:,}: the peak is never left, or reached; "
            f"{max(1, steps // 20):,} is a twentieth"
        )
    elif warmup > WARMUP_SHARE * steps:
        yield f"warmup_steps is {warmup:,}, {warmup / steps:.0%} of the run: {max(1, steps // 20):,} is a twentieth"
    elif warmup == 0 and recipe.schedule == "inverse-square-root":
        yield (
            "warmup_steps is 0: with inverse-square-root the rate falls from the first step on, to a tenth after 100; "
            "T5's is 10,000"
        )
    elif warmup == 0 and recipe.schedule != "constant" and steps > 100:
        yield f"warmup_steps is 0: the first steps are made at the full rate; {max(1, steps // 20):,} is a twentieth"
    if recipe.optimiser == "adafactor" and recipe.schedule == "constant" and recipe.start_from is None:
        yield (
            "schedule is constant with adafactor, T5's setting for fine-tuning: pre-training has inverse-square-root "
            "or cosine"
        )


def _check_objective(recipe: PretrainRecipe) -> Iterator[str]:
    for name, low, high, usual in (
        ("mask_rate", 0.05, 0.4, "0.15, for large models 0.25"),
        ("noise_density", 0.05, 0.5, "0.15"),
        ("mean_span_length", 1.0, 10.0, "3"),
        (
            "generator_share",
            0.1,
            0.6,
            "0.25 to 0.5; a strong generator starves the discriminator (ELECTRA, 3.2)",
        ),
    ):
        value = getattr(recipe, name)
        too_strong = name == "generator_share" and recipe.chosen_objective == "masked-diffusion"
        if value is not None and not low <= value <= high and not too_strong:
            yield f"{name} is {value:g}, usual is {usual}"
    if recipe.family == "electra" and recipe.length > 512:
        yield (
            f"length is {recipe.length}: each place gets a vector of its own, which only texts so long train; 512 is "
            "what was published"
        )


@dataclass(frozen=True)
class Reading:
    """How much of its data a run reads.

    Attributes:
        epochs: how often it reads all of it.
        tokens: how many it has to train on.
    """

    epochs: float
    tokens: int


def check_data(recipe: PretrainRecipe, shards: Shards, unknown_id: int, reading: Reading) -> Iterator[str]:
    """Of the data that a run will read, beside the recipe.

    Args:
        unknown_id: the token of what the vocabulary cannot write.
    """
    train, held_out = shards.train, shards.validation
    if reading.epochs > EPOCHS:
        yield (
            f"the {reading.tokens:,} tokens of the data are read {reading.epochs:,.0f} times, and above {EPOCHS} they "
            f"teach nothing more: give more text, or {max(1, int(recipe.steps * EPOCHS / reading.epochs)):,} steps"
        )
    if held_out.tokens < HELD_OUT:
        yield (
            f"held out are {held_out.tokens:,} tokens, too few to measure on: pack with a larger --validation-share "
            "than now, or more text"
        )
    share = unknown_share(train, unknown_id)
    if share > UNKNOWN_SHARE:
        yield (
            f"{share:.1%} of the tokens are unknown to the vocabulary: train a tokenizer on this text "
            "(`unmask tokenizer train`), or add what it lacks (`unmask vocabulary extend`)"
        )
    if train.tokens and train.characters / train.tokens < CHARACTERS:
        yield (
            f"a token stands for {train.characters / train.tokens:.2f} characters: the vocabulary falls to pieces on "
            "this text; train one on it (`unmask tokenizer train`)"
        )
    yield from _check_lengths(recipe, train)


def _check_lengths(recipe: PretrainRecipe, train: Split) -> Iterator[str]:
    lengths = np.diff(train.document_starts)
    if recipe.family != "electra" or not len(lengths):
        return
    # An example ends with its document.
    longest = int(np.quantile(lengths, 0.99))
    if longest < recipe.length / 2:
        yield (
            f"length is {recipe.length}, and 99 % of the documents have at most {longest} tokens, with which an "
            f"example ends: places behind are hardly trained; {max(16, -(-longest // 16) * 16)} is enough, or join "
            "documents"
        )


def unknown_share(train: Split, unknown_id: int) -> float:
    """Of the first some million tokens, those that are unknown."""
    ends = np.searchsorted(train.document_starts, LOOKED_AT, side="right")
    starts = train.document_starts[: max(2, ends)]
    tokens = train.gather(starts[:-1], np.diff(starts))
    return float((tokens == unknown_id).mean()) if len(tokens) else 0.0
