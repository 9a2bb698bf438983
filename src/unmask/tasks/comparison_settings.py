"""What an equal-compute comparison is made of: one TOML file. No torch here.

name = "ELECTRA against masked LM"
data = ["texts/"]                    # paths are taken from where this file is
seeds = 5                            # fine-tunings of each system on each task

[pretraining]                        # a pre-training recipe; its steps are those of the first system
family = "electra"
…

[systems.ELECTRA]                    # what each system changes in it
generator_share = 0.25

[systems."masked LM"]
objective = "masked-lm"

[finetuning]                         # the same for every system
learning_rate = 1e-3

[tasks.senses]                       # a task, and what it changes in [finetuning]
file = "tasks/senses.toml"
epochs = 1.0
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from unmask.errors import UserError
from unmask.settings import from_table, nearest, read_toml
from unmask.tasks.settings import FinetuneSettings
from unmask.tasks.task import Task, load_task
from unmask.training.recipe import PretrainRecipe

_KEYS = ("name", "data", "tokenizer", "seeds", "pretraining", "systems", "finetuning", "tasks")
#: The control, beside the systems: the first one's shape with drawn weights.
UNTRAINED = "no pre-training"
#: What every system has in common, so that the comparison is one of objectives: tokenizer, data, size, seed.
_COMMON = ("family", "vocab_size", "lowercase", "validation_share", "layers", "width", "heads")
#: What is derived: steps from the compute, warm-up in proportion.
_DERIVED = ("steps", "warmup_steps")


@dataclass(frozen=True)
class ComparedTask:
    """A task and how every system is fine-tuned on it, but for the seed."""

    task: Task
    settings: FinetuneSettings


@dataclass(frozen=True)
class ComparisonSettings:
    """An equal-compute comparison.

    Attributes:
        name: what the report is called.
        data: raw text to pre-train on, as of `unmask pretrain --data`.
        tokenizer: a directory; None: one is trained on the data.
        seeds: fine-tunings of each system on each task, at least 2.
        pretraining: what the systems have in common; its steps are the first system's.
        systems: name → settings that it changes, in the order in which they are reported.
        tasks: in the order in which they are reported.
    """

    name: str
    data: Sequence[str]
    tokenizer: str | None
    seeds: int
    pretraining: PretrainRecipe
    systems: Mapping[str, Mapping[str, Any]]
    tasks: Sequence[ComparedTask]

    @classmethod
    def load(
        cls, path: Path, *, data: Sequence[str] = (), steps: int | None = None, seeds: int | None = None
    ) -> Self:
        """A comparison from its file.

        Args:
            data, steps, seeds: in place of the file's.

        Raises:
            UserError: no such file, a misspelt or missing key, a value that does not fit, fewer than two
                systems or seeds, systems that differ in what has to be equal.
        """
        table = read_toml(path)
        for key in table:
            if key not in _KEYS:
                raise UserError(f"{path}: unknown key {key!r}{nearest(key, _KEYS)}")
        for key in ("name", "pretraining", "systems", "tasks", *(() if data else ("data",))):
            if key not in table:
                raise UserError(f"{path}: the key {key!r} is missing")
        base = {**table["pretraining"], **({} if steps is None else {"steps": steps})}
        tokenizer = table.get("tokenizer")
        settings = cls(
            name=str(table["name"]),
            data=list(data) or [_beside(path, entry) for entry in table["data"]],
            tokenizer=None if tokenizer is None else _beside(path, tokenizer),
            seeds=table.get("seeds", 5) if seeds is None else seeds,
            pretraining=from_table(PretrainRecipe, base, f"{path}: pretraining"),
            systems=table["systems"],
            tasks=[
                _task(path, name, entry, table.get("finetuning", {}))
                for name, entry in table["tasks"].items()
            ],
        )
        settings._check(path)
        return settings

    def _check(self, path: Path) -> None:
        if type(self.seeds) is not int or self.seeds < 2:
            raise UserError(
                f"{path}: seeds is {self.seeds!r}: give at least 2, or there is no spread to judge by"
            )
        if len(self.systems) < 2:
            raise UserError(f"{path}: there is nothing to compare: name at least two tables [systems.…]")
        for kind, names in (
            ("systems", [*self.systems, UNTRAINED]),
            ("tasks", [each.task.name for each in self.tasks]),
        ):
            if len({slug(name) for name in names}) < len(names):
                raise UserError(f"{path}: the names of the {kind} are too alike: {', '.join(names)}")
        if self.pretraining.family != "electra":
            raise UserError(
                f"{path}: family is 't5': what is compared here are encoders, family = \"electra\""
            )
        for name, changes in self.systems.items():
            for key in changes:
                if key in _COMMON:
                    raise UserError(f"{path}: systems.{name} changes {key}, which the systems have in common")
                if key in _DERIVED:
                    raise UserError(f"{path}: systems.{name} sets {key}, which follows from equal compute")
            self.recipe(name, f"{path}: systems.{name}")

    def recipe(self, system: str, where: str = "", *, steps: int | None = None) -> PretrainRecipe:
        """A system's recipe; with other steps the warm-up keeps its share of them."""
        base = self.pretraining
        table = {name: value for name, value in base.as_table().items() if value is not None}
        table |= self.systems[system]
        if steps is not None:
            table |= {"steps": steps, "warmup_steps": round(base.warmup_steps * steps / base.steps)}
        return from_table(PretrainRecipe, table, where or system)


def slug(name: str) -> str:
    """A name as a directory's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "system"


def _beside(path: Path, entry: str) -> str:
    return str(path.parent / entry)


def _task(path: Path, name: str, entry: Mapping[str, Any], common: Mapping[str, Any]) -> ComparedTask:
    where = f"{path}: tasks.{name}"
    own = dict(entry)
    if "file" not in own:
        raise UserError(f"{where}: the key 'file' is missing")
    task = load_task(_beside(path, own.pop("file")))
    if task.its_kind.head != "label":
        raise UserError(f"{where}: {task.name} is {task.kind}: encoders are compared on classification")
    return ComparedTask(task, from_table(FinetuneSettings, {**common, **own}, where))
