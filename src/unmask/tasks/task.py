"""What a task is: which files, which columns, what kind of answer, and how it is judged. A TOML file says it:

    name = "e2e"
    kind = "text-to-text"           # or "classification"
    source = "meaning"              # or several columns: ["premise", "hypothesis"]
    target = "text"
    train = "train.csv.gz"          # these three relative to the TOML file
    validation = "validation.csv.gz"
    test = "test.csv.gz"

and, where the defaults of `Task` are not right, `metric`, `prefix`, `max_source_length` and
`max_target_length`.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from unmask.errors import UserError
from unmask.tasks.metrics import Metric

Kind = Literal["text-to-text", "classification"]
Split = Literal["train", "validation", "test"]

KINDS: tuple[Kind, ...] = get_args(Kind)
SPLITS: tuple[Split, ...] = get_args(Split)

# The first judges unless the task names another; all are reported.
METRICS_OF_KIND: Mapping[Kind, tuple[Metric, ...]] = {
    "text-to-text": ("bleu", "chrf", "exact_match"),
    "classification": ("accuracy", "macro_f1"),
}


@dataclass(frozen=True)
class Task:
    """What a fine-tuning task is.

    Args:
        name: what reports call it.
        kind: "text-to-text" (the target is written) or "classification" (it is one of the labels seen in
            training).
        source: the columns that hold the input.
        target: the column that holds the wanted text or the label.
        train, validation, test: the files (see `unmask.tasks.rows` for their formats); a task needs no
            validation or test file until something asks for it.
        metric: what the task is judged by; default the first of its kind in `METRICS_OF_KIND`.
        prefix: what is read before the input, e.g. "summarize: " (T5 paper, 2.4); default nothing.
        max_source_length, max_target_length: tokens kept of input and target, special ones included.

    Raises:
        UserError: a kind or metric that does not exist or fit, no source column, a length below 1.
    """

    name: str
    kind: Kind
    source: tuple[str, ...]
    target: str
    train: Path
    validation: Path | None = None
    test: Path | None = None
    metric: Metric | None = None
    prefix: str = ""
    max_source_length: int = 128
    max_target_length: int = 128

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"task {self.name!r}: no kind {self.kind!r}{_instead(self.kind, KINDS)}")
        metrics = METRICS_OF_KIND[self.kind]
        if self.metric is not None and self.metric not in metrics:
            instead = _instead(self.metric, metrics)
            raise UserError(f"task {self.name!r}: no metric {self.metric!r} for {self.kind}{instead}")
        if not self.source:
            raise UserError(f"task {self.name!r}: 'source' names no column")
        for key in ("max_source_length", "max_target_length"):
            if getattr(self, key) < 1:
                raise UserError(f"task {self.name!r}: {key!r} is {getattr(self, key)}; it must be 1 or more")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All metrics of the kind, the one that the task is judged by first."""
        metrics = METRICS_OF_KIND[self.kind]
        main = self.metric or metrics[0]
        return (main, *(metric for metric in metrics if metric != main))

    def file(self, split: Split) -> Path:
        """The file of a split.

        Raises:
            UserError: the task has none.
        """
        path: Path | None = getattr(self, split)
        if path is None:
            raise UserError(f'task {self.name!r} has no {split} file: add `{split} = "…"` to the task')
        return path

    def text(self, sources: Sequence[str]) -> str:
        """What a writer reads for one row: the prefix and the input; of several columns each with its name, as in
        "mnli hypothesis: … premise: …" (T5 paper, appendix D)."""
        if len(self.source) == 1:
            return self.prefix + sources[0]
        named = zip(self.source, sources, strict=True)
        return self.prefix + " ".join(f"{column}: {text}" for column, text in named)


def load_task(path: str | os.PathLike[str]) -> Task:
    """A task from its TOML file; the paths in it are taken from where that file is.

    Raises:
        UserError: the file is missing or no TOML, a key is unknown (says the nearest), missing, or of a
            wrong type, or a value does not fit.
    """
    path = Path(path)
    values = _read_toml(path)
    keys = [field.name for field in fields(Task)]
    for key in values:
        if key not in keys:
            raise UserError(f"{path}: unknown key {key!r}{_instead(key, keys)}")
    for field in fields(Task):
        if field.default is MISSING and field.name not in values:
            raise UserError(f"{path}: the key {field.name!r} is missing")
    checked = {key: _checked(path, key, value) for key, value in values.items()}
    try:
        return Task(**checked)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no task file {path}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path} cannot be read as TOML: {error}") from None


def _checked(path: Path, key: str, value: Any) -> Any:
    """A TOML value as its field's type."""
    if key in SPLITS:
        return path.parent / _of_type(path, key, value, str, "a path in quotes")
    if key == "source":
        columns = [value] if isinstance(value, str) else value
        if not isinstance(columns, list) or not all(isinstance(column, str) for column in columns):
            raise UserError(f"{path}: 'source' must be a column name or a list of them, and is {value!r}")
        return tuple(columns)
    if key.startswith("max_"):
        return _of_type(path, key, value, int, "a whole number")
    return _of_type(path, key, value, str, "a text in quotes")


def _of_type(path: Path, key: str, value: Any, wanted: type, described: str) -> Any:
    # Not isinstance: true is an int to Python.
    if type(value) is not wanted:
        raise UserError(f"{path}: {key!r} must be {described}, and is {value!r}")
    return value


def _instead(given: object, known: Sequence[str]) -> str:
    """How an error about a name that is not known ends."""
    near = difflib.get_close_matches(str(given), known, n=1)
    return f": did you mean {near[0]!r}?" if near else f": known are {', '.join(known)}"
