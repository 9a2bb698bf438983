"""Several tasks learnt by one T5, which tells them apart by what it reads: a mixture is a TOML file

name = "both"
temperature = 2.0       # T5 paper, 3.5.2; default: 1, in proportion to the tasks' rows
cap = 65536             # the most rows that count; default: all

[tasks]
cola = "cola/task.toml"                       # a task file, from where this one is, or a task that is built in
summaries = { task = "cnn.toml", rate = 0.3 } # a rate of its own, for all tasks or for none
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unmask.data.mixtures import rates_by_size
from unmask.errors import UserError
from unmask.settings import nearest, read_toml
from unmask.t5.config import T5Config
from unmask.tasks.finetuning import as_claim, emphasise
from unmask.tasks.kinds.kind import Row
from unmask.tasks.learning import Lesson, learn, shape_of
from unmask.tasks.library import find_task
from unmask.tasks.metrics import OF_HUNDRED
from unmask.tasks.models import load_for_training
from unmask.tasks.rows import read_rows
from unmask.tasks.settings import FinetuneSettings
from unmask.tasks.t5 import T5TaskModel
from unmask.tasks.task import Task
from unmask.tasks.validation import Validation
from unmask.training.loop import step_seed
from unmask.training.runs import MODEL, claim_run
from unmask.training.settings import PLAIN, Execution

logger = logging.getLogger("unmask")

_KEYS = ("name", "temperature", "cap", "tasks")
#: What a mixture is judged by: the mean of its tasks' first metrics, each from 0 to 1.
MEAN = "mean"


@dataclass(frozen=True)
class TaskMixture:
    """Tasks and how often each is drawn.

    Attributes:
        name: what reports call it.
        tasks: by name.
        rates: of each, in any unit; None: by the numbers of their rows.
        temperature, cap: see `unmask.data.mixtures.rates_by_size`.
    """

    name: str
    tasks: Mapping[str, Task]
    rates: Mapping[str, float] | None = None
    temperature: float = 1.0
    cap: int | None = None

    def rates_of(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """The rates, for tasks of these sizes in rows."""
        if self.rates is not None:
            return dict(self.rates)
        return rates_by_size(sizes, temperature=self.temperature, cap=self.cap)


def is_mixture(path: str) -> bool:
    """Whether a file is a mixture, not a task."""
    return Path(path).suffix == ".toml" and Path(path).is_file() and "tasks" in read_toml(Path(path))


def load_mixture(path: Path) -> TaskMixture:
    """Raises:
    UserError: an unknown key, a value of the wrong type, fewer than two tasks, rates for some of them only.
    """
    table = read_toml(path)
    for key in table:
        if key not in _KEYS:
            raise UserError(f"{path}: unknown key {key!r}{nearest(key, _KEYS)}")
    name, temperature, cap = table.get("name", path.stem), table.get("temperature", 1.0), table.get("cap")
    if type(temperature) not in (int, float) or type(cap) not in (int, type(None)):
        raise UserError(f"{path}: temperature must be a number and cap a whole number of rows")
    entries = table["tasks"]
    if not isinstance(entries, dict) or len(entries) < 2:
        raise UserError(f"{path}: [tasks] must name two tasks or more")
    tasks, rates = dict[str, Task](), dict[str, float]()
    for key, entry in entries.items():
        place, rate = (entry.get("task"), entry.get("rate")) if isinstance(entry, dict) else (entry, None)
        if not isinstance(place, str) or not isinstance(rate, int | float | None):
            raise UserError(f'{path}: {key} is {entry!r}, it must be a task or {{ task = "…", rate = … }}')
        beside = path.parent / place
        tasks[key] = find_task(str(beside) if place.endswith(".toml") else place)
        if rate is not None:
            rates[key] = float(rate)
    if rates and len(rates) < len(tasks):
        without = next(key for key in tasks if key not in rates)
        raise UserError(f"{path}: {without} has no rate: give one to each task, or to none")
    return TaskMixture(str(name), tasks, rates or None, float(temperature), cap)


class MixtureValidation:
    """The validation rows of all tasks that have some."""

    def __init__(self, parts: Mapping[str, Validation]) -> None:
        self.parts = parts

    def __call__(self) -> Mapping[str, float]:
        scores: dict[str, float] = {}
        for name, part in self.parts.items():
            scores |= {f"{name}/{metric}": value for metric, value in part().items()}
        return {
            MEAN: self._mean({name: scores[f"{name}/{self._metric(name)}"] for name in self.parts})
        } | scores

    def baseline(self) -> float:
        return self._mean({name: part.baseline() for name, part in self.parts.items()})

    def _metric(self, name: str) -> str:
        return self.parts[name].task.metrics[0]

    def _mean(self, scores: Mapping[str, float]) -> float:
        shares = [score / (100 if self._metric(name) in OF_HUNDRED else 1) for name, score in scores.items()]
        return sum(shares) / len(shares)


def finetune_mixture(
    mixture: TaskMixture,
    model: str,
    directory: Path,
    settings: FinetuneSettings,
    *,
    device: torch.device,
    execution: Execution = PLAIN,
) -> Path:
    """Train a T5 on several tasks at once and write it to `directory/model`; continues a stopped run.

    Each task is evaluated on its own validation rows; the weights with the best mean are kept.

    Raises:
        UserError: no T5, tasks that the model could not tell apart, or as for `finetune`.
    """
    if shape_of(model)[0] != "t5":
        raise UserError(f"{model} is an ELECTRA, whose head is for one task: a mixture needs a T5")
    destination = directory / MODEL
    claim_run(
        directory,
        {
            "mixture": {name: as_claim(task) for name, task in mixture.tasks.items()},
            "rates": None if mixture.rates is None else dict(mixture.rates),
            "temperature": mixture.temperature,
            "cap": mixture.cap,
            "model": str(model),
            "settings": as_claim(settings),
        },
    )
    if destination.is_dir():
        logger.warning("%s is finished: its model is in %s", directory, destination)
        return destination
    rows = {name: read_rows(task, "train") for name, task in mixture.tasks.items()}
    _check_told_apart(mixture, rows)
    learners = _learners(mixture, model, rows, settings, device)
    first = next(iter(learners.values()))
    parts = {
        name: validation
        for name, learner in learners.items()
        if (validation := Validation.of(learner.task, learner, settings)) is not None
    }
    lesson = Lesson(
        first,
        {name: learner.examples(rows[name]) for name, learner in learners.items()},
        sum(map(len, rows.values())),
        f"fine-tuning on {mixture.name}",
        MEAN,
        MixtureValidation(parts) if parts else None,
        [(f"{name}: training rows", f"{len(some):,}") for name, some in rows.items()],
        mixture.rates_of({name: len(some) for name, some in rows.items()}),
    )
    learn(lesson, model, directory, settings, execution=execution)
    return destination


def _learners(
    mixture: TaskMixture,
    model: str,
    rows: Mapping[str, Sequence[Row]],
    settings: FinetuneSettings,
    device: torch.device,
) -> dict[str, T5TaskModel]:
    """One model as the learner of each task."""
    torch.manual_seed(step_seed(settings.seed, "initialisation", 0))
    (name, task), *others = mixture.tasks.items()
    first: Any = load_for_training(
        task, model, rows[name], fresh_weights=False, device=device, seed=settings.seed
    )
    learners: dict[str, T5TaskModel] = {name: first}
    for other, its in others:
        labels = its.its_kind.labels(its, rows[other]) if its.its_kind.closed else ()
        learners[other] = T5TaskModel(its, first.model, first.tokenizer, device, labels)
    # Labels in config.json would be those of one task alone: each task's own files say them.
    first.model.config = dataclasses.replace(first.model.config, labels=T5Config.labels)
    for name, learner in learners.items():
        emphasise(learner, rows[name], settings)
    return learners


def _check_told_apart(mixture: TaskMixture, rows: Mapping[str, Sequence[Row]]) -> None:
    """Raises:
    UserError: two tasks make the same text of the same words.
    """
    seen: dict[str, str] = {}
    for name, task in mixture.tasks.items():
        one = rows[name][0]
        blank = dataclasses.replace(one, sources=("…",) * len(one.sources), choices=())
        form = task.its_kind.source_text(task, blank)
        if form in seen:
            raise UserError(
                f"{mixture.name}: the tasks {seen[form]} and {name} read their rows in the same form, so the model "
                f'cannot tell them apart: give each a prefix, such as `prefix = "{name}: "`'
            )
        seen[form] = name
