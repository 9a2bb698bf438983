"""Pre-training of both families: the recipe becomes a model, a stream of batches and a loss."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from unmask import hub
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.report.card import CARD, write_card
from unmask.t5.byte_tokenizer import AnyT5Tokenizer
from unmask.training.card import card_of_run
from unmask.training.corpora import Data, checksums
from unmask.training.electra import electra_pretraining, given_weights
from unmask.training.family import Pretraining
from unmask.training.held_out import held_out_metrics
from unmask.training.loop import step_seed, train
from unmask.training.page import REPORT, write_run_page
from unmask.training.ranks import ALONE, Ranks
from unmask.training.recipe import PretrainRecipe
from unmask.training.runs import MODEL, claim_run
from unmask.training.settings import PLAIN, Execution
from unmask.training.starting import START, settled
from unmask.training.t5 import t5_pretraining

logger = logging.getLogger("unmask")

#: Where a run keeps which examples make which batch, where a batch is a budget of tokens.
PLANS = "plans"


def pretrain(
    recipe: PretrainRecipe,
    data: Data,
    tokenizer: AnyT5Tokenizer | ElectraTokenizer,
    directory: Path,
    *,
    device: torch.device,
    data_workers: int = 0,
    tensorboard: bool = False,
    ranks: Ranks = ALONE,
    execution: Execution = PLAIN,
) -> Path:
    """Train a model from scratch, or continue, and write it to `directory/model`, its page `report.html` beside it.

    Args:
        data: one corpus, or several by name, mixed as the recipe says.
        data_workers, tensorboard, ranks, execution: see `loop.train`.

    Returns:
        The model's directory; at once if it is already there.

    Raises:
        UserError: `directory` holds a run with other settings, or the data is too small for one batch.
    """
    model_directory = directory / MODEL
    with ranks.first_alone():
        recipe, start, made_by = settled(recipe, directory)
        claim_run(
            directory,
            {
                "recipe": recipe.as_table(),
                "tokenizer": tokenizer.fingerprint,
                "data": checksums(data),
                **given_weights(recipe),
                **start,
            },
        )
    if ranks.same(model_directory.is_dir()):
        logger.warning("%s is finished: its model is in %s", directory, model_directory)
        return model_directory
    work = pretraining_of(made_by, data, tokenizer, device, directory / PLANS)
    with ranks.together():
        if start and recipe.generator is None and ranks.is_first and not (directory / START).is_dir():
            with hub.atomic_directory(directory / START) as temporary:
                work.save(temporary)
    log = train(
        work.model,
        work.batches,
        work.loss_of,
        recipe.loop_settings(),
        directory,
        label=f"pre-training {recipe.family}",
        evaluate=lambda: held_out_metrics(work, ranks),
        sample=work.sample,
        flops=work.flops,
        diagnose=work.diagnose,
        data_workers=data_workers,
        tensorboard=tensorboard,
        ranks=ranks,
        execution=execution,
    )
    with ranks.together():
        if ranks.is_first:
            # Before the model, whose directory says that all is there.
            parameters = sum(parameter.numel() for parameter in work.model.parameters())
            write_run_page(
                directory / REPORT, log.lines, recipe.as_table(), {"parameters": f"{parameters:,}"}
            )
            with hub.atomic_directory(model_directory) as temporary:
                work.save(temporary)
                card = card_of_run(recipe, data, log.lines, parameters, recipe.start_from)
                write_card(temporary / CARD, card)
    return model_directory


def pretraining_of(
    recipe: PretrainRecipe,
    data: Data,
    tokenizer: AnyT5Tokenizer | ElectraTokenizer,
    device: torch.device,
    plans: Path | None = None,
) -> Pretraining:
    """What a recipe trains, on what and how, with its first weights, which the recipe's seed decides.

    Args:
        plans: where the plan of batches with a budget of tokens is kept; None: nowhere.

    Raises:
        UserError: settings that do not fit, or too little data.
    """
    torch.manual_seed(step_seed(recipe.seed, "initialisation", 0))
    if isinstance(tokenizer, ElectraTokenizer):
        return electra_pretraining(recipe, data, tokenizer, device, plans)
    return t5_pretraining(recipe, data, tokenizer, device, plans)
