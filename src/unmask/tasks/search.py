"""A small search over the settings of fine-tuning, by Optuna; every trial is a run that can be continued.

Trials are kept in an append-only file (Optuna's journal). The sampler of trial n is seeded by the run's seed and n,
so that a search which was stopped goes on as if it had not been.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import torch

from unmask import hub
from unmask.errors import UserError
from unmask.settings import nearest, read_toml
from unmask.tasks.finetuning import as_claim, finetune
from unmask.tasks.learning import Outcome, shape_of
from unmask.tasks.seeds import check_comparable, take_model
from unmask.tasks.settings import FinetuneSettings
from unmask.tasks.task import Task
from unmask.training.loop import step_seed
from unmask.training.runs import MODEL, claim_run
from unmask.training.settings import PLAIN, Execution

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger("unmask")

JOURNAL = "trials.log"
SEARCH = "search.json"
#: Trials that are drawn at random before the sampler learns from them.
RANDOM_TRIALS = 5


@dataclass(frozen=True)
class Range:
    """The values that a setting can take: a list, or all between two ends.

    Attributes:
        log: distances are ratios.
    """

    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        if self.choices:
            return trial.suggest_categorical(name, self.choices)
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        settings: of the best trial.
        best: its number.
        trials: of each trial, its values and its score.
    """

    settings: FinetuneSettings
    best: int
    trials: list[dict[str, Any]]


def read_space(path: Path) -> dict[str, Range]:
    """Ranges from a TOML file, a line a setting:

        learning_rate = { low = 1e-4, high = 1e-2, log = true }
        batch_size = [16, 32, 64]

    Raises:
        UserError: no such setting, or no range.
    """
    kinds = get_type_hints(FinetuneSettings)
    space: dict[str, Range] = {}
    for name, value in read_toml(path).items():
        if name not in kinds or name == "seed":
            raise UserError(f"{path}: no setting {name!r} to search over{nearest(name, kinds)}")
        space[name] = _range(f"{path}: {name}", value, whole=int in _options(kinds[name]))
    if not space:
        raise UserError(f"{path} names no setting to search over")
    return space


def _range(where: str, value: Any, *, whole: bool) -> Range:
    if isinstance(value, list) and value:
        return Range(tuple(value))
    if isinstance(value, dict) and {"low", "high"} <= value.keys() <= {"low", "high", "log"}:
        low, high = value["low"], value["high"]
        if all(isinstance(end, int | float) for end in (low, high)) and low < high:
            log = bool(value.get("log", False))
            if log and low <= 0:
                raise UserError(f"{where}: low is {low}, it must be above 0 where distances are ratios")
            return Range((), low, high, log, whole)
    raise UserError(
        f"{where} is {value!r}: give a list of values, or {{ low = …, high = …, log = true or false }}"
    )


def _options(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) or (kind,)


def default_space(settings: FinetuneSettings, family: str) -> dict[str, Range]:
    """What is searched where nothing is named: the learning rate, from a quarter to four times the published one,
    and the settings that the ELECTRA paper searched (appendix B) or, for T5, the batch size.

    Args:
        settings: with defaults.
    """
    assert settings.learning_rate is not None
    space = {"learning_rate": Range((), settings.learning_rate / 4, settings.learning_rate * 4, log=True)}
    if family == "electra" and not settings.lora_rank:
        space["layer_decay"] = Range((0.7, 0.8, 0.9, 1.0))
    space["batch_size"] = Range((16, 32, 64))
    return space


def search(
    task: Task,
    model: str,
    directory: Path,
    settings: FinetuneSettings,
    *,
    trials: int,
    space: Mapping[str, Range] | None = None,
    device: torch.device,
    execution: Execution = PLAIN,
) -> Found:
    """Fine-tune `trials` times with other settings each, and keep the best model in `directory/model`.

    A stopped search continues where it was, in the middle of a trial too.

    Args:
        settings: of all trials; what the space names is replaced.
        space: default: `default_space`.

    Raises:
        UserError: no Optuna, no validation rows, or as for `finetune`.
    """
    optuna = _optuna()
    check_comparable(task, settings, "trials")
    family, width = shape_of(model)
    ranges = dict(space or default_space(settings.with_defaults(family, width, rows=0), family))
    claim_run(
        directory,
        {
            "task": as_claim(task),
            "model": str(model),
            "settings": as_claim(settings),
            "space": {name: as_claim(each) for name, each in ranges.items()},
        },
        "search-run.json",
    )
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(directory / JOURNAL))
    )
    while True:
        study = optuna.create_study(
            study_name=task.name, storage=storage, direction="maximize", load_if_exists=True
        )
        running = [one for one in study.trials if one.state == optuna.trial.TrialState.RUNNING]
        done = len(study.trials) - len(running)
        if done >= trials:
            break
        study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=RANDOM_TRIALS, seed=step_seed(settings.seed, "search", done) % 2**32
        )
        values = (
            dict(running[0].params)
            if running and running[0].params.keys() == ranges.keys()
            else _ask(study, ranges, done)
        )
        place = directory / f"trial-{done}"
        finetune(
            task,
            model,
            place,
            dataclasses.replace(settings, **values),
            device=device,
            execution=execution,
        )
        score = Outcome.read(place).score
        study.tell(done, -math.inf if score is None or math.isnan(score) else score)
    return _finished(study, settings, directory, task.metrics[0])


def _ask(study: optuna.Study, ranges: Mapping[str, Range], number: int) -> dict[str, Any]:
    """The next trial's values. A trial that was cut off before it had them all is asked the rest."""
    import optuna

    unfinished = [one for one in study.trials if one.state == optuna.trial.TrialState.RUNNING]
    trial = optuna.trial.Trial(study, unfinished[0]._trial_id) if unfinished else study.ask()
    assert trial.number == number
    return {name: each.suggest(trial, name) for name, each in ranges.items()}


def _finished(study: optuna.Study, settings: FinetuneSettings, directory: Path, metric: str) -> Found:
    best = study.best_trial
    lines = [{"trial": one.number, metric: one.value, **one.params} for one in study.trials]
    found = Found(dataclasses.replace(settings, **best.params), best.number, lines)
    hub.write_json(directory / SEARCH, {"metric": metric, "best": best.number, "trials": lines})
    if (directory / f"trial-{best.number}" / MODEL).is_dir():
        runs = [directory / f"trial-{one.number}" for one in study.trials]
        take_model(directory, directory / f"trial-{best.number}", runs)
    return found


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("a search needs Optuna: pip install 'unmask[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna
