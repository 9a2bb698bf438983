"""What a task is: which files, which columns, what kind of answer, and how it is judged. A TOML file says it:

    name = "e2e"
    kind = "text-to-text"           # one of `unmask.tasks.kinds.KINDS`
    source = "meaning"              # or several columns: ["premise", "hypothesis"]
    target = "text"
    train = "train.csv.gz"          # these three relative to the TOML file
    validation = "validation.csv.gz"
    test = "test.csv.gz"

and, where the defaults of `Task` are not right, any other of its fields.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from string import Formatter
from typing import Any, Literal, get_args

from unmask.errors import UserError
from unmask.settings import nearest
from unmask.tasks.kinds import KINDS, Kind
from unmask.tasks.metrics import Metric

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
#: See `unmask.tasks.heads.pairs`.
Scoring = Literal["pseudo-likelihood", "discriminator"]
SCORINGS: tuple[Scoring, ...] = get_args(Scoring)
#: ELECTRA's heads for whole texts: see `ElectraConfig.classification_head`.
HEADS = ("dense", "linear")


@dataclass(frozen=True)
class Task:
    """What a fine-tuning task is.

    Args:
        name: what reports call it.
        kind: one of `KINDS`.
        source: the columns that hold the input.
        target: the column that holds what is wanted; minimal pairs need none.
        train, validation, test: the files (see `unmask.tasks.tables` for their formats), a directory of texts, or a
            pattern (`train/*.parquet`); a task needs none of them until something asks for it.
        format: how the files are read; None: as their names say.
        columns: a column as the task calls it → as the files do, where that differs; `a.b` is what a column of objects,
            a, has under b.
        drop_empty: leave out rows in which a column has no value; default: they are an error.
        metrics: what the task is judged by, the first above all; default: those of its kind.
        labels: a value of the target column → the label it stands for, such as 0 → "entailment". Where this or
            `label_words` is given, the labels are these; else those that are seen in training.
        choices: (multiple choice) the columns of the choices.
        positive: (f1) the label that is to be found; default: the last.
        group: the column whose equal values make rows one group (`group_f1`, `group_exact_match`).
        slices: columns of the validation and test files; `unmask evaluate` also scores the rows of each of their
            values by themselves.
        prefix: what T5 reads before the input, e.g. "summarize: " (T5 paper, 2.4); default nothing.
        template: what T5 reads behind it, columns in braces: "question: {question} context: {context}"; default: of
            one column its text, of several each with its name.
        label_words: label → the words that T5 writes for it; default: the label itself.
        unanswerable: (question answering) there are questions that the context does not answer (SQuAD 2).
        no_answer: (question answering) what T5 writes where there is no answer.
        range, step: (regression) the ends and the distance of the numbers that T5 can write; default: from the
            lowest to the highest in training, by 0.2.
        segments: the one or two texts that ELECTRA reads, columns in braces; default: the source columns.
        head: ELECTRA's for whole texts, "dense" (Transformers') or "linear" (the paper's).
        scoring: (minimal pairs) how ELECTRA scores a sentence; default: pseudo-likelihood where there is a generator.
        symmetric: the order of the two texts says nothing: ELECTRA learns from both.
        stride, max_question, max_answer: (question answering) tokens by which a window over a context moves on,
            tokens kept of a question, tokens of the longest answer looked for; published for SQuAD: 128, 64, 30.
        max_source_length, max_target_length: tokens kept of input and target, special ones included; of a context
            that is read in windows, the size of one.

    Raises:
        UserError: a kind, metric or head that does not exist or fit, no source column, a template that names another
            column, a number that is out of range.
    """

    name: str
    kind: str
    source: tuple[str, ...]
    target: str = ""
    train: Path | None = None
    validation: Path | None = None
    test: Path | None = None
    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    drop_empty: bool = False
    metrics: tuple[Metric, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    positive: str | None = None
    group: str | None = None
    slices: tuple[str, ...] = ()
    prefix: str = ""
    template: str | None = None
    label_words: Mapping[str, str] = field(default_factory=dict)
    unanswerable: bool = False
    no_answer: str = "unanswerable"
    range: tuple[float, float] | None = None
    step: float = 0.2
    segments: tuple[str, ...] = ()
    head: str = "dense"
    scoring: Scoring | None = None
    symmetric: bool = False
    stride: int = 128
    max_question: int = 64
    max_answer: int = 30
    max_source_length: int = 128
    max_target_length: int = 128

    def __post_init__(self) -> None:
        where = f"task {self.name!r}"
        if self.kind not in KINDS:
            raise UserError(f"{where}: no kind {self.kind!r}{nearest(self.kind, list(KINDS))}")
        if not self.source:
            raise UserError(f"{where}: 'source' names no column")
        columns = [*self.source, *filter(None, [self.target])]
        twice = [column for column in columns if columns.count(column) > 1]
        if twice:
            raise UserError(f"{where}: the column {twice[0]!r} is named twice in 'source' and 'target'")
        if not self.target and self.its_kind.trains:
            raise UserError(f"{where}: the key 'target' is missing")
        self._check_metrics(where)
        for key in ("stride", "max_question", "max_answer", "max_source_length", "max_target_length"):
            if getattr(self, key) < 1:
                raise UserError(f"{where}: {key!r} is {getattr(self, key)}; it must be 1 or more")
        if not 0 < self.step < math.inf:
            raise UserError(f"{where}: 'step' is {self.step}; it must be a number above 0")
        if self.range is not None and not -math.inf < self.range[0] < self.range[1] < math.inf:
            raise UserError(
                f"{where}: 'range' is {list(self.range)}: give two numbers, the lower end first, then the higher"
            )
        if self.head not in HEADS:
            raise UserError(f"{where}: no head {self.head!r}{nearest(self.head, HEADS)}")
        if self.scoring not in (None, *SCORINGS):
            raise UserError(f"{where}: no scoring {self.scoring!r}{nearest(str(self.scoring), SCORINGS)}")
        if len(self.segments) > 2:
            raise UserError(f"{where}: {len(self.segments)} segments: ELECTRA reads one or two")
        for key, template in (("template", self.template), *(("segments", text) for text in self.segments)):
            if template is not None:
                self._check_template(where, key, template)
        words = [self.word(label) for label in self.label_names]
        if len(set(words)) < len(words):
            raise UserError(f"{where}: two labels have the same words in 'label_words'")
        self.its_kind.check(self)

    def _check_metrics(self, where: str) -> None:
        kind = self.its_kind
        known = [*kind.metrics, *kind.more_metrics]
        for metric in self.metrics:
            if metric not in known:
                raise UserError(f"{where}: no metric {metric!r} for {self.kind}{nearest(metric, known)}")
        if not self.metrics:
            object.__setattr__(self, "metrics", kind.metrics)

    def _check_template(self, where: str, key: str, template: str) -> None:
        try:
            parts = list(Formatter().parse(template))
        except ValueError as error:
            raise UserError(
                f"{where}: {key!r} is {template!r}: {error}; write braces twice to mean them"
            ) from None
        for _, name, spec, conversion in parts:
            if name is None:
                continue
            if spec or conversion:
                raise UserError(
                    f"{where}: {key!r} has {conversion or spec!r} behind the name of {{{name}}}: leave it out"
                )
            if name not in self.source:
                raise UserError(
                    f"{where}: {key!r} has {{{name}}}, which is no source column{nearest(name, self.source)}"
                )

    @property
    def its_kind(self) -> Kind:
        return KINDS[self.kind]

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels that the task names; () where they are those of training."""
        return tuple(dict.fromkeys([*self.labels.values(), *self.label_words]))

    def word(self, label: str) -> str:
        """What T5 writes for a label."""
        return self.label_words.get(label, label)

    def file(self, split: Split) -> Path:
        """The file of a split.

        Raises:
            UserError: the task has none.
        """
        path: Path | None = getattr(self, split)
        if path is None:
            raise UserError(f'task {self.name!r} has no {split} file: add `{split} = "…"` to the task')
        return path

    @property
    def held_out(self) -> Split:
        """The split that is judged on: test, or else validation."""
        return "test" if self.test else "validation"

    def text(self, sources: Sequence[str]) -> str:
        """What a writer reads for one row: the prefix and the template; without one, of several columns each with its
        name, as in "mnli hypothesis: … premise: …" (T5 paper, appendix D)."""
        if self.template is not None:
            return self.prefix + self._filled(self.template, sources)
        if len(self.source) == 1:
            return self.prefix + sources[0]
        named = zip(self.source, sources, strict=True)
        return self.prefix + " ".join(f"{column}: {text}" for column, text in named)

    def segment_texts(self, sources: Sequence[str]) -> tuple[str, ...]:
        """The one or two texts that ELECTRA reads.

        Raises:
            UserError: more source columns than that, and no `segments`.
        """
        if self.segments:
            return tuple(self._filled(segment, sources) for segment in self.segments)
        if len(sources) > 2:
            raise UserError(
                f"task {self.name!r} has {len(sources)} source columns and ELECTRA reads one or two texts: say how "
                f'they are put together, such as `segments = ["{{{self.source[0]}}} {{{self.source[1]}}}", …]`'
            )
        return tuple(sources)

    def _filled(self, template: str, sources: Sequence[str]) -> str:
        # Not str.format: it takes a column "a.b" for b of a.
        texts = dict(zip(self.source, sources, strict=True))
        parts = Formatter().parse(template)
        return "".join(literal + ("" if name is None else texts[name]) for literal, name, _, _ in parts)


def load_task(path: str | os.PathLike[str]) -> Task:
    """A task from its TOML file; the paths in it are taken from where that file is.

    Raises:
        UserError: the file is missing or no TOML, a key is unknown (says the nearest), missing, or of a
            wrong type, or a value does not fit.
    """
    path = Path(path)
    return task_from(_read_toml(path), str(path), path.parent)


def task_from(values: Mapping[str, Any], where: str, directory: Path) -> Task:
    """A task from a table of values.

    Args:
        where: what messages call the table.
        directory: where its paths are taken from.

    Raises:
        UserError: as for `load_task`.
    """
    keys = [each.name for each in fields(Task)]
    for key in values:
        if key not in keys:
            raise UserError(f"{where}: unknown key {key!r}{nearest(key, keys)}")
    for each in fields(Task):
        if each.default is MISSING and each.default_factory is MISSING and each.name not in values:
            raise UserError(f"{where}: the key {each.name!r} is missing")
    checked = {key: _checked(where, key, value, directory) for key, value in values.items()}
    if checked["kind"] in KINDS:
        checked.setdefault("max_source_length", KINDS[checked["kind"]].max_source_length)
    try:
        return Task(**checked)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no task file {path}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path} cannot be read as TOML: {error}") from None


_LISTS = {"source", "metrics", "choices", "segments", "slices"}
_WHOLE = {"stride", "max_question", "max_answer", "max_source_length", "max_target_length"}


def _checked(where: str, key: str, value: Any, directory: Path) -> Any:
    """A TOML value as its field's type."""
    if key in SPLITS:
        return directory / _of_type(where, key, value, str, "a path in quotes")
    if key in _LISTS:
        entries = [value] if isinstance(value, str) else value
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise UserError(f"{where}: {key!r} must be a text in quotes or a list of them, and is {value!r}")
        return tuple(entries)
    if key in ("labels", "label_words", "columns"):
        if not isinstance(value, dict) or not all(isinstance(entry, str) for entry in value.values()):
            raise UserError(f"{where}: {key!r} must be a table of texts in quotes, and is {value!r}")
        return value
    if key == "range":
        if not isinstance(value, list) or [type(end) in (int, float) for end in value] != [True, True]:
            raise UserError(f"{where}: 'range' must be two numbers, such as [0, 5], and is {value!r}")
        return float(value[0]), float(value[1])
    if key == "step":
        if type(value) not in (int, float):
            raise UserError(f"{where}: 'step' must be a number, and is {value!r}")
        return float(value)
    if key in ("symmetric", "unanswerable", "drop_empty"):
        return _of_type(where, key, value, bool, "true or false")
    if key in _WHOLE:
        return _of_type(where, key, value, int, "a whole number")
    return _of_type(where, key, value, str, "a text in quotes")


def _of_type(where: str, key: str, value: Any, wanted: type, described: str) -> Any:
    # Not isinstance: true is an int to Python.
    if type(value) is not wanted:
        raise UserError(f"{where}: {key!r} must be {described}, and is {value!r}")
    return value
