"""What is wrong with a task's data, said before training: empty and repeated rows, labels that only one split has, rows
that training and test share, how much is cut off, how unlike the classes are in size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unmask.errors import UserError
from unmask.tasks.kinds.kind import Row, as_number, is_empty, listed
from unmask.tasks.metrics import unread
from unmask.tasks.rows import raw_rows, row_of
from unmask.tasks.task import SPLITS, Split, Task

#: Shares of a split from which on something is worth a warning.
NOTABLE = 0.01
#: The most frequent class by the least frequent, from which on accuracy says little.
UNBALANCED = 10
#: A T5 that writes fewer numbers than this tells little apart.
FEW_NUMBERS = 5
#: Row numbers that a finding names.
SHOWN = 5


@dataclass(frozen=True)
class Lengths:
    """How long rows are, in tokens.

    Attributes:
        median, longest: of the texts that are read.
        limit: tokens that are kept.
        cut: rows that are longer.
    """

    median: int
    longest: int
    limit: int
    cut: int


@dataclass(frozen=True)
class SplitCheck:
    """What was found in a split.

    Attributes:
        split: which.
        rows: that can be used.
        empty: numbers of rows with an empty column.
        broken: what is wrong with other rows, the first few.
        repeated: numbers of rows that say the same as an earlier one, target included.
        contradicted: numbers of rows whose source has another target in an earlier row, where there is one right one.
        classes: label → rows, the most frequent first; none where the target is any text.
        lengths: by what is read: "source", "target"; none without a tokenizer.
    """

    split: Split
    rows: int
    empty: Sequence[int]
    broken: Sequence[str]
    repeated: Sequence[int]
    contradicted: Sequence[int]
    classes: dict[str, int]
    lengths: Mapping[str, Lengths]


@dataclass(frozen=True)
class DataCheck:
    """What was found in all splits.

    Attributes:
        splits: of those that the task has.
        shared: split → numbers of its rows whose source is also in training.
        only: (split, label): labels that no other split has, training's among them.
        notes: on the targets of all splits, a line each.
    """

    task: Task
    splits: Sequence[SplitCheck]
    shared: Mapping[Split, Sequence[int]] = field(default_factory=dict)
    only: Sequence[tuple[Split, str]] = ()
    notes: Sequence[str] = ()

    def warnings(self) -> list[str]:
        """A line for each thing that should be looked at."""
        lines = [line for check in self.splits for line in _split_warnings(check)]
        sizes = {check.split: check.rows for check in self.splits}
        for split, numbers in self.shared.items():
            lines.append(
                f"{split}: {len(numbers)} of {sizes[split]} rows have a source that training has too{_named(numbers)}"
            )
        for split, label in self.only:
            rest = "it cannot be learnt" if split != "train" else "how well it is learnt is not measured"
            lines.append(f"{split}: no other split has the label {label!r}: {rest}")
        return [*lines, *self.notes]


def _split_warnings(check: SplitCheck) -> list[str]:
    lines = []
    if check.empty:
        lines.append(f"{check.split}: {len(check.empty)} rows have an empty column{_named(check.empty)}")
    lines += check.broken
    if check.repeated:
        lines.append(
            f"{check.split}: {len(check.repeated)} rows repeat an earlier one{_named(check.repeated)}"
        )
    if check.contradicted:
        lines.append(
            f"{check.split}: {len(check.contradicted)} rows have the source of an earlier one and another target"
            f"{_named(check.contradicted)}"
        )
    for part, lengths in check.lengths.items():
        if lengths.cut > NOTABLE * check.rows:
            lines.append(
                f"{check.split}: {lengths.cut} of {check.rows} rows ({lengths.cut / check.rows:.0%}) are cut at "
                f"{lengths.limit} tokens of the {part} (max_{part}_length); the longest has {lengths.longest}"
            )
    counts = list(check.classes.values())
    if check.split == "train" and len(counts) > 1 and counts[0] >= UNBALANCED * counts[-1]:
        often, seldom = next(iter(check.classes)), next(reversed(check.classes))
        lines.append(
            f"train: {counts[0]} rows are {often!r} and {counts[-1]} are {seldom!r}: accuracy says little here, "
            "macro F1 more"
        )
    return lines


def _named(numbers: Sequence[int]) -> str:
    more = ", …" if len(numbers) > SHOWN else ""
    return f" (row {', '.join(map(str, numbers[:SHOWN]))}{more})"


#: Rows → how many tokens each has that is read ("source") and to be written ("target"), special ones included.
TokenCounter = Callable[[Sequence[Row]], Mapping[str, Sequence[int]]]


def check_data(task: Task, count_tokens: TokenCounter | None = None) -> DataCheck:
    """Look through all of a task's files.

    Args:
        count_tokens: as a model has them (`unmask.tasks.models.token_counter`); None: lengths are not looked at.

    Raises:
        UserError: a file cannot be read, has no such column, or not one row that can be used.
    """
    splits = [split for split in SPLITS if getattr(task, split) is not None]
    if not splits:
        raise UserError(f"task {task.name!r} has no file: there is nothing to check")
    checked = {split: _check_split(task, split, count_tokens) for split in splits}
    rows = {split: found for split, (found, _) in checked.items()}
    shared = dict[Split, Sequence[int]]()
    if "train" in rows:
        known = {_key(row) for row in rows["train"]}
        for split in splits:
            numbers = [row.number for row in rows[split] if _key(row) in known]
            if split != "train" and numbers:
                shared[split] = numbers
    labels = {split: check.classes for split, (_, check) in checked.items()}
    only = [
        (split, label)
        for split in splits
        for label in sorted(labels[split])
        if len(splits) > 1 and not any(label in labels[other] for other in splits if other != split)
    ]
    notes = _notes(task, [row for some in rows.values() for row in some])
    return DataCheck(task, [check for _, check in checked.values()], shared, only, notes)


def _notes(task: Task, rows: Sequence[Row]) -> list[str]:
    """What targets are that the task does not suit: of other scripts, of another size, written in two ways."""
    notes = unread(task.metrics, [text for row in rows for text in row.references])
    if task.its_kind.head == "number":
        values = [float(row.target) for row in rows]
        low, high = task.range or (min(values), max(values))
        numbers = round(high / task.step) - round(low / task.step) + 1
        if low < high and numbers < FEW_NUMBERS:
            notes.append(
                f"targets from {low:g} to {high:g} in steps of {task.step:g} are {numbers} numbers, all that a T5 can "
                "write: give a smaller `step`"
            )
    if task.its_kind.head == "label":
        alike: dict[float, set[str]] = {}
        for label in {row.target for row in rows}:
            if as_number(label) is not None:
                alike.setdefault(float(label), set()).add(label)
        notes += [
            f"the labels {listed(sorted(some))} are one number written in several ways, and count as several labels"
            for some in alike.values()
            if len(some) > 1
        ]
    return notes


def _check_split(task: Task, split: Split, count: TokenCounter | None) -> tuple[list[Row], SplitCheck]:
    rows, empty, broken, wrong = list[Row](), list[int](), list[str](), 0
    for number, values in raw_rows(task, split):
        if _has_gap(task, values):
            empty.append(number)
            continue
        try:
            rows.append(row_of(task, split, number, values))
        except UserError as error:
            wrong += 1
            if len(broken) < SHOWN:
                broken.append(str(error))
    if not rows:
        raise UserError(broken[0] if broken else f"{task.file(split)}: every row has an empty column")
    if wrong > len(broken):
        broken.append(f"{split}: {wrong - len(broken)} more rows cannot be used")
    repeated, contradicted = _repetitions(task, rows)
    return rows, SplitCheck(
        split,
        len(rows),
        empty,
        broken,
        repeated,
        contradicted,
        _classes(task, rows),
        _lengths(task, rows, count),
    )


def _has_gap(task: Task, values: Mapping[str, Any]) -> bool:
    return any(
        is_empty(value)
        for column, value in values.items()
        if not (task.unanswerable and column == task.target)
    )


def _key(row: Row) -> tuple[str, ...]:
    return (*row.sources, *row.choices)


def _repetitions(task: Task, rows: Sequence[Row]) -> tuple[list[int], list[int]]:
    """Numbers of rows that repeat an earlier one, and of those that contradict one."""
    seen: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    repeated, contradicted = list[int](), list[int]()
    for row in rows:
        before = seen.setdefault(_key(row), set())
        if row.references in before:
            repeated.append(row.number)
        elif before and not task.its_kind.grouped:
            contradicted.append(row.number)
        before.add(row.references)
    return repeated, contradicted


def _classes(task: Task, rows: Sequence[Row]) -> dict[str, int]:
    head = task.its_kind.head
    if head == "label":
        return dict(Counter(row.target for row in rows).most_common())
    if head == "tokens":
        return dict(Counter(tag for row in rows for tag in row.target.split()).most_common())
    return {}


def _lengths(task: Task, rows: Sequence[Row], count: TokenCounter | None) -> dict[str, Lengths]:
    if count is None:
        return {}
    limits = {"source": task.max_source_length, "target": task.max_target_length}
    return {part: _measured(lengths, limits[part]) for part, lengths in count(rows).items()}


def _measured(lengths: Sequence[int], limit: int) -> Lengths:
    ordered = sorted(lengths)
    cut = sum(length > limit for length in ordered)
    return Lengths(ordered[len(ordered) // 2], ordered[-1], limit, cut)
