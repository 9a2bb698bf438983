"""Fine-tuning with several seeds: the spread, the runs that failed, and one model of them.

Fine-tuning does not work with every seed (arXiv 2006.05987, 2006.04884): a run that ends at or under what is scored
without a look at the input has failed. It is reported, kept out of the median, and repeated with another seed.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unmask import hub
from unmask.errors import UserError
from unmask.tasks.finetuning import as_claim, finetune
from unmask.tasks.learning import Outcome
from unmask.tasks.settings import FinetuneSettings, Keep
from unmask.tasks.task import Task
from unmask.training.runs import MODEL, claim_run
from unmask.training.settings import PLAIN, Execution

logger = logging.getLogger("unmask")

SEEDS = "seeds.json"


@dataclass(frozen=True)
class Spread:
    """Scores of several seeds on the validation rows.

    Attributes:
        metric: what is scored.
        scores: by seed, of the runs that did not fail, in their order.
        failed: by seed, of those that did.
        chosen: the seed whose model is kept.
    """

    metric: str
    scores: Mapping[int, float]
    failed: Mapping[int, float]
    chosen: int

    @property
    def median(self) -> float:
        return statistics.median(self.scores.values())

    @classmethod
    def of(cls, metric: str, outcomes: Mapping[int, Outcome], keep: Keep) -> Spread:
        """Raises:
        UserError: all runs failed.
        """
        scores = {seed: one.score for seed, one in outcomes.items() if one.score is not None}
        failed = {seed: scores[seed] for seed, one in outcomes.items() if one.has_failed}
        good = {seed: score for seed, score in scores.items() if seed not in failed}
        if not good:
            raise UserError(
                f"all {len(failed)} runs failed: {metric} is at or under what is scored without a look at the input; "
                "try another learning rate (--search does), a longer warm-up, or more epochs"
            )
        return cls(metric, good, failed, _choice(good, keep))

    @classmethod
    def read(cls, directory: Path) -> Spread:
        """The spread of finished runs."""
        values = hub.read_json(directory / SEEDS)
        scores, failed = (
            {int(seed): float(score) for seed, score in values[name].items()} for name in ("scores", "failed")
        )
        return cls(str(values["metric"]), scores, failed, int(values["chosen"]))

    def as_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "scores": {str(seed): score for seed, score in self.scores.items()},
            "failed": {str(seed): score for seed, score in self.failed.items()},
            "median": self.median,
            "chosen": self.chosen,
        }


def finetune_seeds(
    task: Task,
    model: str,
    directory: Path,
    settings: FinetuneSettings,
    *,
    seeds: int,
    keep: Keep = "best",
    device: torch.device,
    fresh_weights: bool = False,
    execution: Execution = PLAIN,
) -> Spread:
    """Fine-tune with the seeds `settings.seed`, `settings.seed` + 1, … and keep one model in `directory/model`.

    For each run that fails another seed is tried, at most as many as `seeds`. A stopped command continues where it
    was.

    Args:
        seeds: how many runs are wanted that do not fail, 2 or more.
        keep: the seed with the best score, or with the median (of two middle ones, the lower).

    Raises:
        UserError: no validation rows to compare seeds on, all runs failed, or as for `finetune`.
    """
    check_comparable(task, settings, "several seeds")
    claim_run(
        directory,
        {
            "task": as_claim(task),
            "model": str(model),
            "fresh_weights": fresh_weights,
            "settings": as_claim(settings),
            "seeds": seeds,
            "keep": keep,
        },
        "seeds-run.json",
    )
    if (directory / MODEL).is_dir():
        logger.warning("%s is finished: its model is in %s", directory, directory / MODEL)
        return Spread.read(directory)
    outcomes: dict[int, Outcome] = {}
    for seed in range(settings.seed, settings.seed + 2 * seeds):
        if len(outcomes) - sum(one.has_failed for one in outcomes.values()) == seeds:
            break
        place = directory / f"seed-{seed}"
        finetune(
            task,
            model,
            place,
            dataclasses.replace(settings, seed=seed),
            device=device,
            fresh_weights=fresh_weights,
            execution=execution,
        )
        outcomes[seed] = Outcome.read(place)
    spread = Spread.of(task.metrics[0], outcomes, keep)
    hub.write_json(directory / SEEDS, spread.as_json())
    take_model(
        directory, directory / f"seed-{spread.chosen}", [directory / f"seed-{seed}" for seed in outcomes]
    )
    return spread


def take_model(directory: Path, chosen: Path, runs: Iterable[Path]) -> None:
    """The model of one run becomes `directory/model`; those of all runs are deleted."""
    with hub.atomic_directory(directory / MODEL) as temporary:
        shutil.copytree(chosen / MODEL, temporary, dirs_exist_ok=True)
    for run in runs:
        shutil.rmtree(run / MODEL, ignore_errors=True)


def check_comparable(task: Task, settings: FinetuneSettings, what: str) -> None:
    """Raises:
    UserError: runs of the task could not be compared.
    """
    if task.validation is None:
        raise UserError(
            f'{what} are compared on validation rows, and task {task.name!r} has none: add `validation = "…"` to it'
        )
    if settings.evaluate_every == 0:
        raise UserError(f"{what} are compared on validation rows: leave evaluate_every out, or above 0")


def _choice(scores: Mapping[int, float], keep: Keep) -> int:
    ordered = sorted(scores, key=lambda seed: (scores[seed], -seed))
    return ordered[-1] if keep == "best" else ordered[(len(ordered) - 1) // 2]
