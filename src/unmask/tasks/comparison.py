"""An equal-compute comparison: systems that differ in their objective are pre-trained with the same number of
floating-point operations and fine-tuned alike, with several seeds.

Everything is kept below one directory and made once: a comparison that was stopped goes on where it was.

    tokenizer/, data/          what the text was made into
    systems/NAME/              a pre-training run each
    tasks/TASK/NAME/seed-K/    a fine-tuning each: result.json, its weights are not kept
    comparison.json            every number of the report
    report.html
"""

from __future__ import annotations

import logging
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from unmask import hub
from unmask.data.shards import Shards
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.tasks.comparison_settings import UNTRAINED, ComparedTask, ComparisonSettings, slug
from unmask.tasks.evaluation import HeldOut
from unmask.tasks.finetuning import finetune
from unmask.tasks.models import load_for_prediction
from unmask.tasks.presentation import as_json
from unmask.training.electra import PASSES, step_flops, training_batches
from unmask.training.metrics import read_metrics
from unmask.training.pretraining import pretrain
from unmask.training.recipe import PretrainRecipe
from unmask.training.runs import claim_run

logger = logging.getLogger("unmask")

#: Batches that the mean cost of a step is measured on, at equal distances over the run.
SAMPLED_BATCHES = 64
RESULT = "result.json"


@dataclass(frozen=True)
class Cost:
    """What a system's pre-training costs.

    Attributes:
        steps: optimiser steps.
        flops: floating-point operations of all steps, by formula (`unmask.electra.flops`).
        tokens: of text, read in all steps.
    """

    steps: int
    flops: float
    tokens: float


@dataclass(frozen=True)
class Outcome:
    """What came out.

    Attributes:
        costs, seconds: by system; seconds of pre-training as its log has them.
        scores: task → system → the task's metric for each seed, in their order; UNTRAINED among the systems.
        baselines: task → baseline → its score.
        held_out: system → the last held-out measurements of its pre-training.
    """

    settings: ComparisonSettings
    costs: Mapping[str, Cost]
    seconds: Mapping[str, float]
    scores: Mapping[str, Mapping[str, Sequence[float]]]
    baselines: Mapping[str, Mapping[str, float]]
    held_out: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class MeanDifference:
    """Mean of one sample minus the mean of another, with Welch's 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """The interval leaves out zero."""
        return self.low > 0 or self.high < 0


def mean_difference(first: Sequence[float], second: Sequence[float]) -> MeanDifference:
    """Args:
    first, second: at least two values each, of unlike variance perhaps.
    """
    from scipy.special import stdtrit

    value = statistics.fmean(first) - statistics.fmean(second)
    # Variances of the two means; the degrees of freedom are Welch and Satterthwaite's.
    parts = [statistics.variance(values) / len(values) for values in (first, second)]
    if not sum(parts):
        return MeanDifference(value, value, value)
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(first) - 1) + parts[1] ** 2 / (len(second) - 1))
    half = float(stdtrit(freedom, 0.975)) * sum(parts) ** 0.5
    return MeanDifference(value, value - half, value + half)


def equal_compute(
    settings: ComparisonSettings, shards: Shards, tokenizer: ElectraTokenizer
) -> dict[str, tuple[PretrainRecipe, Cost]]:
    """Each system's recipe and cost: as many steps as come nearest to the first system's operations."""
    found: dict[str, tuple[PretrainRecipe, Cost]] = {}
    budget: float | None = None
    for name in settings.systems:
        recipe = settings.recipe(name)
        flops, tokens = _step_cost(recipe, shards, tokenizer)
        budget = flops * recipe.steps if budget is None else budget
        steps = max(1, round(budget / flops))
        found[name] = (settings.recipe(name, steps=steps), Cost(steps, steps * flops, steps * tokens))
    return found


def _step_cost(recipe: PretrainRecipe, shards: Shards, tokenizer: ElectraTokenizer) -> tuple[float, float]:
    """Operations and tokens of a step, means over batches at equal distances."""
    batches, flops_of = training_batches(recipe, shards, tokenizer), step_flops(recipe, tokenizer)
    count = min(recipe.steps, SAMPLED_BATCHES)
    sample = [batches[number * recipe.steps // count] for number in range(count)]
    flops = statistics.fmean(flops_of(batch) for batch in sample)
    return flops, statistics.fmean(len(batch["tokens"]) for batch in sample)


def compare(
    settings: ComparisonSettings,
    shards: Shards,
    tokenizer: ElectraTokenizer,
    directory: Path,
    *,
    device: torch.device,
) -> Outcome:
    """Run a comparison, or what is left of it.

    Raises:
        UserError: data, tasks or settings that do not fit, or a directory that holds another comparison.
    """
    claim_run(directory, _claim(settings, shards, tokenizer), "comparison-run.json")
    plans = equal_compute(settings, shards, tokenizer)
    models = {
        name: pretrain(recipe, shards, tokenizer, directory / "systems" / slug(name), device=device)
        for name, (recipe, _) in plans.items()
    }
    scores: dict[str, dict[str, list[float]]] = {}
    baselines: dict[str, dict[str, float]] = {}
    for compared in settings.tasks:
        held_out = HeldOut.read(compared.task, compared.task.held_out)
        place = directory / "tasks" / slug(compared.task.name)
        metric = compared.task.metrics[0]
        baselines[compared.task.name] = _baselines(held_out, place, metric)
        scores[compared.task.name] = {
            name: [
                _score(compared, held_out, models.get(name), models, place / slug(name), seed, device)
                for seed in range(settings.seeds)
            ]
            for name in (*models, UNTRAINED)
        }
    runs = {name: directory / "systems" / slug(name) for name in models}
    return Outcome(
        settings,
        {name: cost for name, (_, cost) in plans.items()},
        {name: _seconds(plans[name], run) for name, run in runs.items()},
        scores,
        baselines,
        {name: _last_held_out(run) for name, run in runs.items()},
    )


def _claim(settings: ComparisonSettings, shards: Shards, tokenizer: ElectraTokenizer) -> dict[str, Any]:
    """What every result depends on. Not the number of seeds: more can be added."""
    return {
        "pretraining": settings.pretraining.as_table(),
        "systems": {name: dict(changes) for name, changes in settings.systems.items()},
        "tasks": {
            compared.task.name: {
                **{key: str(value) for key, value in asdict(compared.task).items()},
                "settings": asdict(compared.settings),
            }
            for compared in settings.tasks
        },
        "tokenizer": tokenizer.fingerprint,
        "data": shards.checksum,
    }


def _baselines(held_out: HeldOut, place: Path, metric: str) -> dict[str, float]:
    """What answers without a model score, made once."""
    path = place / "baselines.json"
    if not path.is_file():
        hub.write_json(path, {name: as_json(found) for name, found in held_out.baselines().items()})
    return {name: float(scores[metric]["score"]) for name, scores in hub.read_json(path).items()}


def _score(
    compared: ComparedTask,
    held_out: HeldOut,
    model: Path | None,
    models: Mapping[str, Path],
    place: Path,
    seed: int,
    device: torch.device,
) -> float:
    """One fine-tuning, made once; without a model of its own it is the first's shape, untrained."""
    run = place / f"seed-{seed}"
    path = run / RESULT
    if not path.is_file():
        start = model or next(iter(models.values()))
        tuned = finetune(
            compared.task,
            str(start),
            run,
            replace(compared.settings, seed=seed),
            device=device,
            fresh_weights=model is None,
        )
        evaluation = held_out.model(load_for_prediction(compared.task, tuned, device=device))
        hub.write_json(path, as_json(evaluation))
        shutil.rmtree(tuned)
    return float(hub.read_json(path)[compared.task.metrics[0]]["score"])


def _seconds(plan: tuple[PretrainRecipe, Cost], run: Path) -> float:
    """How long pre-training took at the rate that its log ends with."""
    recipe, cost = plan
    lines = [line for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "training"]
    return PASSES[recipe.electra_objective] * cost.tokens / float(lines[-1]["tokens_per_second"])


def _last_held_out(run: Path) -> dict[str, float]:
    lines = [line for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "evaluation"]
    return {name: value for name, value in lines[-1].items() if name not in ("step", "kind")}


def outcome_as_json(outcome: Outcome) -> dict[str, Any]:
    """Every number of the report."""
    first = next(iter(outcome.costs))
    return {
        "name": outcome.settings.name,
        "pretraining": {
            name: {
                "steps": cost.steps,
                "flops": cost.flops,
                "tokens": cost.tokens,
                "seconds": outcome.seconds[name],
                "held_out": outcome.held_out[name],
            }
            for name, cost in outcome.costs.items()
        },
        "tasks": {
            compared.task.name: {
                "metric": compared.task.metrics[0],
                "baselines": outcome.baselines[compared.task.name],
                "systems": {
                    name: {
                        "scores": list(values),
                        "mean": statistics.fmean(values),
                        "standard_deviation": statistics.stdev(values),
                    }
                    for name, values in outcome.scores[compared.task.name].items()
                },
                "first_minus": {
                    name: vars(mean_difference(outcome.scores[compared.task.name][first], values))
                    for name, values in outcome.scores[compared.task.name].items()
                    if name != first
                },
            }
            for compared in outcome.settings.tasks
        },
    }
