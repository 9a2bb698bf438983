"""Pre-training of ELECTRA: the recipe becomes a model, a stream of batches, and the step of its objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from unmask import hub
from unmask.data.pretraining import MaskedDiffusion, ReplacedTokens
from unmask.data.shards import Split
from unmask.data.stream import EvaluationBatches, TrainingBatches
from unmask.electra import flops
from unmask.electra.baselines import AllTokensMaskedLM, MaskedLMLosses, masked_lm_step
from unmask.electra.config import ElectraConfig, generator_config
from unmask.electra.diffusion import DIFFUSION_DISCRIMINATOR_WEIGHT, DiffusionLosses, diffusion_step
from unmask.electra.electric import Electric, ElectricLosses
from unmask.electra.model import ElectraForMaskedLM, ElectraForPreTraining
from unmask.electra.pair import DISCRIMINATOR, DISCRIMINATOR_WEIGHT, GENERATOR, ElectraPair
from unmask.electra.sharing import Sharing, check_sizes, standing_alone
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.nn.ragged import Layout
from unmask.nn.sums import Sums
from unmask.nn.transfer import to_device
from unmask.objectives.ramps import Ramp
from unmask.training.batches import to_layout, to_tensor
from unmask.training.corpora import Data, held_out_by_corpus, mixed_batches
from unmask.training.family import Pretraining
from unmask.training.health import Health, grace_steps
from unmask.training.loop import Batch, Loss, step_seed
from unmask.training.recipe import ElectraObjective, PretrainRecipe
from unmask.training.samples import electra_sample
from unmask.training.starting import half, start_directory, start_electra, weights_checksum
from unmask.training.watching import Sample

#: How many models read each token of a batch, of which a log's rate counts each.
PASSES: dict[ElectraObjective, int] = {
    "replaced-tokens": 2,
    "masked-lm": 1,
    "all-tokens": 2,
    "electric": 3,
    "masked-diffusion": 2,
}


@dataclass(frozen=True)
class Inputs:
    """A batch on the device: packed ids as they are and as the generator sees them, places, lengths, segments."""

    tokens: Tensor
    masked: Tensor
    drawn: Tensor
    layout: Layout
    types: Tensor
    #: What each drawn place counts, where they do not count the same.
    weights: Tensor | None = None

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> Self:
        return cls(
            to_tensor(batch["tokens"], device),
            to_tensor(batch["masked"], device),
            to_tensor(batch["drawn"], device),
            to_layout(batch, device),
            to_tensor(batch["token_types"], device),
            to_device(torch.from_numpy(batch["weights"]), device) if "weights" in batch else None,
        )

    def arguments(self) -> tuple[Tensor, Tensor, Tensor, Layout, Tensor]:
        """In the order in which the steps take them."""
        return self.tokens, self.masked, self.drawn, self.layout, self.types


@dataclass(frozen=True)
class Objective:
    """What differs between the objectives.

    Attributes:
        model: everything that is trained.
        step: (batch, seed of the sampling, temperature) → what it measured.
        counts: of a whole batch, what the loss is a mean over, as fields of what a step measures.
        total: of what it measured, the loss to minimise.
        save: writes what is kept, without the tokenizer, and returns where a tokenizer belongs.
    """

    model: nn.Module
    step: Callable[[Inputs, int, float], Any]
    counts: Callable[[Batch], dict[str, int]]
    total: Callable[[Any], Tensor]
    save: Callable[[Path], list[Path]]


def electra_pretraining(
    recipe: PretrainRecipe,
    data: Data,
    tokenizer: ElectraTokenizer,
    device: torch.device,
    plans: Path | None = None,
) -> Pretraining:
    """A run's parts; weights are drawn from torch's global generator.

    Raises:
        UserError: settings or a given generator that do not fit, or too little data.
    """
    make = {
        "replaced-tokens": _replaced_tokens,
        "masked-lm": _masked_lm,
        "all-tokens": _all_tokens,
        "electric": _electric,
        "masked-diffusion": _masked_diffusion,
    }
    objective, passes = make[recipe.electra_objective](recipe, tokenizer), PASSES[recipe.electra_objective]
    objective.model.to(device)
    temperatures = temperature_ramp(recipe)
    held_out = held_out_batches(recipe, data, tokenizer)

    def measured(batch: Batch, seed: int, temperature: float) -> Sums:
        return objective.step(Inputs.of(batch, device), seed, temperature)

    def loss_of(batch: Batch, step: int, whole: Batch) -> Loss:
        out = measured(batch, step_seed(recipe.seed, "sampling", step), temperatures.at(step))
        total = objective.total(out.out_of(**objective.counts(whole)))
        return Loss(total, out, passes * len(batch["tokens"]))

    def evaluated(batch: Batch, number: int) -> Sums:
        return measured(batch, step_seed(recipe.seed, "held-out sampling", number), temperatures.end)

    def save(directory: Path) -> None:
        for part in objective.save(directory):
            tokenizer.save_pretrained(part)

    def sample() -> Sample:
        assert isinstance(objective.model, ElectraPair)
        batch, seed = next(iter(held_out.values()))[0], step_seed(recipe.seed, "sample", 0)
        return electra_sample(objective.model, tokenizer, batch, device, noise_seed=seed)

    health = Health(grace_steps(recipe.steps, recipe.warmup_steps), tokenizer.vocab_size)
    return Pretraining(
        objective.model,
        training_batches(recipe, data, tokenizer, plans),
        loss_of,
        held_out,
        evaluated,
        save,
        step_flops(recipe, tokenizer, objective.model),
        sample if isinstance(objective.model, ElectraPair) else None,
        health.diagnose,
    )


# --- data ------------------------------------------------------------------------------------------------


def training_batches(
    recipe: PretrainRecipe, data: Data, tokenizer: ElectraTokenizer, plans: Path | None = None
) -> TrainingBatches:
    """The stream that a recipe trains on, the same for every objective: see `mixed_batches`."""
    rate = recipe.chosen("mask_rate", 0.15)
    rates = Ramp(rate, recipe.chosen("final_mask_rate", rate), recipe.steps)
    return mixed_batches(recipe, data, lambda shards: _source(recipe, shards.train, tokenizer, rates), plans)


def held_out_batches(
    recipe: PretrainRecipe, data: Data, tokenizer: ElectraTokenizer
) -> dict[str, EvaluationBatches]:
    """Each corpus' validation split, always at the rate that training ends with, so that measurements compare."""
    rate = recipe.chosen("final_mask_rate", recipe.chosen("mask_rate", 0.15))
    return held_out_by_corpus(
        recipe, data, lambda shards: _source(recipe, shards.validation, tokenizer, rate)
    )


def _source(
    recipe: PretrainRecipe, split: Split, tokenizer: ElectraTokenizer, rate: float | Ramp
) -> ReplacedTokens | MaskedDiffusion:
    settings: dict[str, Any] = {
        "max_length": recipe.length,
        "cls_id": tokenizer.cls_token_id,
        "sep_id": tokenizer.sep_token_id,
        "mask_id": tokenizer.mask_token_id,
        "special_ids": sorted(tokenizer.special_ids),
    }
    if recipe.electra_objective == "masked-diffusion":
        return MaskedDiffusion(split, **settings)
    return ReplacedTokens(split, **settings, mask_rate=rate)


def temperature_ramp(recipe: PretrainRecipe) -> Ramp:
    """The temperature of the generator's sampling."""
    start = recipe.chosen("temperature", 1.0)
    return Ramp(start, recipe.chosen("final_temperature", start), recipe.steps)


# --- models ----------------------------------------------------------------------------------------------


def model_config(recipe: PretrainRecipe, tokenizer: ElectraTokenizer) -> ElectraConfig:
    """Of the model that is wanted: a discriminator, or a masked LM of its size."""
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
        initializer_range=recipe.chosen("initializer_range", 0.02),
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=recipe.chosen("tied", True),
    )


def filler_config(recipe: PretrainRecipe, config: ElectraConfig) -> ElectraConfig:
    """Of the generator: drawn to the recipe's measure, or the given one's."""
    if recipe.generator is not None:
        path = _generator_directory(recipe.generator) / hub.CONFIG
        return ElectraConfig.from_hub(hub.read_json(path), str(path))
    share = 1.0 if recipe.electra_objective == "masked-diffusion" else 0.25
    return generator_config(config, recipe.chosen("generator_share", share))


def step_flops(
    recipe: PretrainRecipe, tokenizer: ElectraTokenizer, model: nn.Module | None = None
) -> Callable[[Batch], int]:
    """Batch → floating-point operations of a training step on it (`unmask.electra.flops`).

    Args:
        model: what is trained, where it was made; None: as the recipe says.
    """
    objective = recipe.electra_objective
    generator: ElectraConfig | None
    if isinstance(model, ElectraPair):
        generator, config = model.generator.config, model.discriminator.config
    elif isinstance(model, ElectraForMaskedLM):
        generator, config = None, model.config
    else:
        config = model_config(recipe, tokenizer)
        generator = None if objective == "masked-lm" else filler_config(recipe, config)
    special = sorted(tokenizer.special_ids)

    def of(batch: Batch) -> int:
        lengths, drawn = batch["lengths"].tolist(), len(batch["drawn"])
        if generator is None:
            return flops.masked_lm_flops(config, lengths, drawn)
        if objective == "all-tokens":
            return flops.all_tokens_flops(generator, config, lengths, drawn)
        if objective == "electric":
            ordinary = int((~np.isin(batch["tokens"], special)).sum())
            return flops.electric_flops(generator, config, lengths, ordinary, drawn)
        frozen = recipe.chosen("freeze_generator", False)
        return flops.replaced_token_flops(generator, config, lengths, drawn, frozen=frozen)

    return of


# --- objectives ------------------------------------------------------------------------------------------


def _replaced_tokens(recipe: PretrainRecipe, tokenizer: ElectraTokenizer) -> Objective:
    pair = _pair(recipe, tokenizer)
    weight = recipe.chosen("discriminator_weight", DISCRIMINATOR_WEIGHT)
    return Objective(
        pair,
        lambda inputs, seed, temperature: pair.replaced_token_step(
            *inputs.arguments(), noise_seed=seed, temperature=temperature
        ),
        _drawn_and_tokens,
        lambda losses: losses.loss(weight),
        _pair_saver(pair),
    )


def _masked_diffusion(recipe: PretrainRecipe, tokenizer: ElectraTokenizer) -> Objective:
    pair = _pair(recipe, tokenizer)
    weight = recipe.chosen("discriminator_weight", DIFFUSION_DISCRIMINATOR_WEIGHT)
    special = torch.tensor(sorted(tokenizer.special_ids))

    def step(inputs: Inputs, seed: int, temperature: float) -> DiffusionLosses:
        assert inputs.weights is not None
        return diffusion_step(
            pair.generator,
            pair.discriminator,
            *inputs.arguments(),
            weights=inputs.weights,
            noisable=int((~torch.isin(inputs.tokens, special.to(inputs.tokens.device))).sum()),
            noise_seed=seed,
            temperature=temperature,
        )

    def counts(batch: Batch) -> dict[str, int]:
        return {"noisable": _ordinary(batch, tokenizer), "judged": len(batch["tokens"])}

    return Objective(pair, step, counts, lambda losses: losses.loss(weight), _pair_saver(pair))


def _drawn_and_tokens(batch: Batch) -> dict[str, int]:
    return {"drawn": len(batch["drawn"]), "tokens": len(batch["tokens"])}


def _ordinary(batch: Batch, tokenizer: ElectraTokenizer) -> int:
    """How many tokens of a batch are not special."""
    return int((~np.isin(batch["tokens"], sorted(tokenizer.special_ids))).sum())


def _pair_saver(pair: ElectraPair) -> Callable[[Path], list[Path]]:
    """How a run whose outcome is a pair writes it."""

    def save(directory: Path) -> list[Path]:
        pair.save_pretrained(directory)
        return [directory, directory / GENERATOR, directory / DISCRIMINATOR]

    return save


def _pair(recipe: PretrainRecipe, tokenizer: ElectraTokenizer) -> ElectraPair:
    frozen = recipe.chosen("freeze_generator", False)
    sharing = recipe.chosen("embedding_sharing", "separate" if frozen else "shared")
    if recipe.start_from is not None:
        return _started_pair(recipe, tokenizer, sharing, frozen)
    config = model_config(recipe, tokenizer)
    if recipe.generator is None:
        return ElectraPair.fresh(filler_config(recipe, config), config, sharing)
    generator = _given_generator(recipe, tokenizer)
    discriminator = ElectraForPreTraining(config)
    check_sizes(generator.config, config, sharing)
    if sharing != "separate":
        # The generator's tables are the trained ones.
        trained = generator.encoder.embeddings.state_dict()
        discriminator.encoder.embeddings.load_state_dict(trained)
    return ElectraPair(generator, discriminator, sharing, freeze_generator=frozen)


def _started_pair(
    recipe: PretrainRecipe, tokenizer: ElectraTokenizer, sharing: Sharing, frozen: bool
) -> ElectraPair:
    """Both halves of a checkpoint, or its discriminator, or BERT's encoder, with another generator."""
    directory = start_directory(recipe)
    discriminator = start_electra(ElectraForPreTraining, half(directory, DISCRIMINATOR), recipe, tokenizer)
    if (directory / GENERATOR).is_dir():
        if recipe.generator is not None:
            raise UserError(
                f"{directory} has a generator: leave out generator, or start from {directory / DISCRIMINATOR}"
            )
        generator = start_electra(ElectraForMaskedLM, directory / GENERATOR, recipe, tokenizer)
    elif recipe.generator is not None:
        generator = _given_generator(recipe, tokenizer)
    else:
        generator = ElectraForMaskedLM(filler_config(recipe, discriminator.config))
        if sharing == "disentangled":
            generator.encoder.embeddings.load_state_dict(discriminator.encoder.embeddings.state_dict())
    check_sizes(generator.config, discriminator.config, sharing)
    return ElectraPair(generator, discriminator, sharing, freeze_generator=frozen)


def _given_generator(recipe: PretrainRecipe, tokenizer: ElectraTokenizer) -> ElectraForMaskedLM:
    assert recipe.generator is not None
    directory = _generator_directory(recipe.generator)
    _check_given(directory, tokenizer, recipe)
    return ElectraForMaskedLM.from_pretrained(
        directory,
        dtype="float32",
        hidden_dropout_prob=recipe.dropout,
        attention_probs_dropout_prob=recipe.dropout,
    )


def _masked_lm(recipe: PretrainRecipe, tokenizer: ElectraTokenizer) -> Objective:
    model = (
        ElectraForMaskedLM(model_config(recipe, tokenizer))
        if recipe.start_from is None
        else start_electra(ElectraForMaskedLM, half(start_directory(recipe), GENERATOR), recipe, tokenizer)
    )

    def step(inputs: Inputs, seed: int, temperature: float) -> MaskedLMLosses:
        return masked_lm_step(model, *inputs.arguments())

    def counts(batch: Batch) -> dict[str, int]:
        return {"drawn": len(batch["drawn"])}

    return Objective(model, step, counts, lambda losses: losses.loss(), _saver(lambda: model))


def _all_tokens(recipe: PretrainRecipe, tokenizer: ElectraTokenizer) -> Objective:
    config = model_config(recipe, tokenizer)
    both = AllTokensMaskedLM.fresh(
        filler_config(recipe, config), config, recipe.chosen("embedding_sharing", "shared")
    )
    weight = recipe.chosen("discriminator_weight", 1.0)
    return Objective(
        both,
        lambda inputs, seed, temperature: both.step(
            *inputs.arguments(), noise_seed=seed, temperature=temperature
        ),
        _drawn_and_tokens,
        lambda losses: losses.loss(weight),
        _saver(lambda: standing_alone(both.model)),
    )


def _electric(recipe: PretrainRecipe, tokenizer: ElectraTokenizer) -> Objective:
    config = model_config(recipe, tokenizer)
    both = Electric(filler_config(recipe, config), config)
    weight, rate = (
        recipe.chosen("discriminator_weight", DISCRIMINATOR_WEIGHT),
        recipe.chosen("mask_rate", 0.15),
    )
    special = torch.tensor(sorted(tokenizer.special_ids))

    def step(inputs: Inputs, seed: int, temperature: float) -> ElectricLosses:
        ordinary = (~torch.isin(inputs.tokens, special.to(inputs.tokens.device))).nonzero()[:, 0]
        return both.step(
            inputs.tokens, inputs.drawn, ordinary, inputs.layout, inputs.types, rate=rate, noise_seed=seed
        )

    def save(directory: Path) -> list[Path]:
        both.energy.save_pretrained(directory / DISCRIMINATOR)
        return [directory, directory / DISCRIMINATOR]

    def counts(batch: Batch) -> dict[str, int]:
        return {"tokens": _ordinary(batch, tokenizer)}

    return Objective(both, step, counts, lambda losses: losses.loss(weight), save)


def _saver(model: Callable[[], ElectraForMaskedLM]) -> Callable[[Path], list[Path]]:
    """How a run whose outcome is one masked LM writes it."""

    def save(directory: Path) -> list[Path]:
        model().save_pretrained(directory)
        return [directory]

    return save


# --- a generator that is given ---------------------------------------------------------------------------


def given_weights(recipe: PretrainRecipe) -> dict[str, str]:
    """What of a run lies outside its recipe, by checksum: the weights of a generator that it starts from."""
    if recipe.generator is None:
        return {}
    return {"generator": weights_checksum(_generator_directory(recipe.generator))}


def _generator_directory(name_or_path: str) -> Path:
    """Of a pair, its generator's."""
    return half(hub.find_model(name_or_path), GENERATOR)


def _check_given(directory: Path, tokenizer: ElectraTokenizer, recipe: PretrainRecipe) -> None:
    theirs = ElectraTokenizer.from_pretrained(directory)
    pieces = [each.convert_ids_to_tokens(range(each.vocab_size)) for each in (theirs, tokenizer)]
    if pieces[0] != pieces[1]:
        raise UserError(
            f"the generator in {directory} has another vocabulary than this run: "
            f"give its tokenizer with --tokenizer {directory}"
        )
    positions = ElectraConfig.from_hub(hub.read_json(directory / hub.CONFIG)).max_position_embeddings
    if positions < recipe.length:
        raise UserError(
            f"the generator in {directory} reads {positions} tokens and length is {recipe.length}: "
            f"give length {positions} or less"
        )
