"""The model card of a fine-tuning run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from unmask.report.card import Facts, ModelCard, called, is_elsewhere, settings_as_facts
from unmask.tasks.settings import FinetuneSettings
from unmask.tasks.task import Task

if TYPE_CHECKING:
    from unmask.tasks.learning import Lesson, Outcome

_NAMES = {"t5": "T5", "electra": "ELECTRA", "encoder-decoder": "ELECTRA with a decoder"}
#: Settings that say nothing about the model.
_HOUSEKEEPING = ("checkpoint_every", "evaluate_every", "log_every", "keep_checkpoints")


def about_task(task: Task, rows: int) -> Facts:
    """What a card says of a task's data: names of files, not where they lie."""
    facts = [
        ("task", task.name),
        ("kind", task.kind),
        ("reads", ", ".join(task.source)),
        ("answers with", task.target),
        ("training rows", f"{rows:,}"),
        *((part, _file(getattr(task, part))) for part in ("train", "validation", "test")),
        ("longest input, in tokens", str(task.max_source_length)),
    ]
    return [(name, value) for name, value in facts if value]


def card_of_lesson(
    lesson: Lesson,
    outcome: Outcome,
    base: str,
    family: str,
    settings: FinetuneSettings,
    *,
    fresh_weights: bool,
) -> ModelCard:
    """What a finished run knows of its model.

    Args:
        base: the directory or Hub name of the model that was trained.
        settings: with the defaults filled in.
    """
    name = _NAMES[family]
    start = called(base)
    begun = f"of the shape of `{start}`, its weights drawn afresh," if fresh_weights else f"from `{start}`,"
    summary = (
        f"{'A' if family == 't5' else 'An'} {name} {begun} after {lesson.label} with unmask "
        f"({outcome.step:,} of {outcome.steps:,} steps)."
    )
    return ModelCard(
        title=lesson.label[:1].upper() + lesson.label[1:],
        summary=summary,
        tags=["unmask", family],
        base_model=base if is_elsewhere(base) and not fresh_weights else None,
        sections={
            "Data": lesson.about,
            "Scores": _scores(outcome),
            "Recipe": settings_as_facts(dataclasses.asdict(settings), _HOUSEKEEPING),
        },
        use="unmask predict TASK.toml MODEL INPUT --out ANSWERS.jsonl\nunmask evaluate TASK.toml MODEL",
        limits=_limits(outcome),
    )


def _file(path: Path | None) -> str:
    return "" if path is None else path.name


def _scores(outcome: Outcome) -> Facts:
    facts = [] if outcome.score is None else [(f"validation {outcome.metric}", f"{outcome.score:.4f}")]
    if outcome.baseline is not None:
        facts.append(("the same without a look at the input", f"{outcome.baseline:.4f}"))
    return facts


def _limits(outcome: Outcome) -> list[str]:
    limits = []
    if outcome.score is None:
        limits.append("It was not scored: the task has no validation rows, so its last weights were kept.")
    else:
        limits.append(
            "The validation rows chose the weights too, so their score flatters: `unmask evaluate` scores rows that it "
            "has not seen."
        )
    if outcome.has_failed:
        limits.append("**It has failed**: it is no better than an answer without a look at the input.")
    limits.append("Texts unlike its training rows were not tried, nor was it tested for bias or safety.")
    return limits
