"""Scores of predictions against references, each with its interval, by the field's own code or equal to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Literal, get_args

from unmask.errors import UserError
from unmask.tasks.metrics.answers import answer_f1_rows, exact_answer_rows
from unmask.tasks.metrics.edits import edit_f05_rows, edit_precision_rows, edit_recall_rows
from unmask.tasks.metrics.labels import (
    accuracy_rows,
    f1_rows,
    group_exact_match_rows,
    group_f1_rows,
    macro_f1_rows,
    matthews_rows,
)
from unmask.tasks.metrics.numbers import pearson_rows, spearman_rows
from unmask.tasks.metrics.scripts import unread
from unmask.tasks.metrics.statistics import (
    RESAMPLES,
    Difference,
    Evaluation,
    Interval,
    RowStatistics,
    bootstrap_interval,
    check_rows,
    paired_difference,
)
from unmask.tasks.metrics.tags import (
    entity_f1_rows,
    entity_precision_rows,
    entity_recall_rows,
    tag_accuracy_rows,
)
from unmask.tasks.metrics.text import bleu_rows, chrf_rows, exact_match_rows, rouge_rows

__all__ = [
    "METRICS",
    "OF_HUNDRED",
    "Difference",
    "Evaluation",
    "Interval",
    "Judged",
    "Metric",
    "RowStatistics",
    "bootstrap_interval",
    "check_installed",
    "paired_difference",
    "row_statistics",
    "score_predictions",
    "unread",
]

Metric = Literal[
    "bleu",
    "bleu_zh",
    "bleu_char",
    "chrf",
    "exact_match",
    "rouge1",
    "rouge2",
    "rouge_l",
    "edit_f05",
    "edit_precision",
    "edit_recall",
    "accuracy",
    "macro_f1",
    "f1",
    "matthews",
    "group_f1",
    "group_exact_match",
    "pearson",
    "spearman",
    "entity_f1",
    "entity_precision",
    "entity_recall",
    "tag_accuracy",
    "squad_f1",
    "squad_exact_match",
    "mlqa_zh_f1",
    "mlqa_zh_exact_match",
]
METRICS: tuple[Metric, ...] = get_args(Metric)
#: Those that go to 100; the others go to 1.
OF_HUNDRED = {metric for metric in METRICS if metric.startswith(("bleu", "chrf", "squad_", "mlqa_"))}

#: Any of several references is right.
_OF_TEXTS: Mapping[str, Callable[[Sequence[str], Sequence[Sequence[str]]], RowStatistics]] = {
    **{name: partial(bleu_rows, name) for name in ("bleu", "bleu_zh", "bleu_char")},
    "chrf": chrf_rows,
    "exact_match": exact_match_rows,
    "rouge1": partial(rouge_rows, "rouge1"),
    "rouge2": partial(rouge_rows, "rouge2"),
    "rouge_l": partial(rouge_rows, "rouge_l"),
    **{name: partial(answer_f1_rows, name) for name in ("squad_f1", "mlqa_zh_f1")},
    **{name: partial(exact_answer_rows, name) for name in ("squad_exact_match", "mlqa_zh_exact_match")},
}
#: What was made of the source counts.
_OF_EDITS: Mapping[str, Callable[[Sequence[str], Sequence[Sequence[str]], Sequence[str]], RowStatistics]] = {
    "edit_f05": edit_f05_rows,
    "edit_precision": edit_precision_rows,
    "edit_recall": edit_recall_rows,
}
#: Metric → the module that it asks, the package that it is in, and our extra for it.
_ASKS: Mapping[str, tuple[str, str, str]] = {
    **dict.fromkeys(("rouge1", "rouge2", "rouge_l"), ("rouge_score", "rouge-score", "eval")),
    **dict.fromkeys(_OF_EDITS, ("errant", "errant", "correction")),
}
#: There is one reference a row.
_OF_ONE: Mapping[str, Callable[[Sequence[str], Sequence[str]], RowStatistics]] = {
    "accuracy": accuracy_rows,
    "macro_f1": macro_f1_rows,
    "matthews": matthews_rows,
    "pearson": pearson_rows,
    "spearman": spearman_rows,
    "entity_f1": entity_f1_rows,
    "entity_precision": entity_precision_rows,
    "entity_recall": entity_recall_rows,
    "tag_accuracy": tag_accuracy_rows,
}


@dataclass(frozen=True)
class Judged:
    """What predictions are judged by.

    Attributes:
        references: of each row: texts, or one label.
        positive: the label that f1 is about; None: the last of those that are there, sorted.
        groups: the group of each row; () where there are none.
        sources: what each row's answer was made of; () where no metric asks.
    """

    references: Sequence[Sequence[str]]
    positive: str | None = None
    groups: Sequence[str] = ()
    sources: Sequence[str] = ()


def check_installed(metrics: Sequence[Metric]) -> None:
    """Raises:
    UserError: a library that a metric needs is not installed.
    """
    for metric in metrics:
        module, package, extra = _ASKS.get(metric, ("", "", ""))
        if module and find_spec(module) is None:
            raise UserError(f"{metric} needs {package}: pip install 'unmask[{extra}]'")


def row_statistics(
    metric: Metric, predictions: Sequence[str], judged: Judged | Sequence[Sequence[str]]
) -> RowStatistics:
    """What each row adds to the score of `metric`.

    Args:
        judged: the references of each row, alone or with what else a metric asks for.

    Raises:
        ValueError: no rows, not as many predictions as rows, a row without a reference, or with several
            labels, no groups for a metric of groups, no sources for one of edits.
        UserError: a library that a metric needs is not installed.
    """
    if not isinstance(judged, Judged):
        judged = Judged(judged)
    references = judged.references
    check_rows(predictions, references)
    if any(not row for row in references):
        raise ValueError(f"row {[not row for row in references].index(True) + 1} has no reference")
    check_installed([metric])
    if metric in _OF_EDITS:
        check_rows(predictions, judged.sources)
        return _OF_EDITS[metric](predictions, references, judged.sources)
    if metric in _OF_TEXTS:
        return _OF_TEXTS[metric](predictions, references)
    if any(len(row) != 1 for row in references):
        raise ValueError(f"{metric} takes one label a row")
    labels = [row[0] for row in references]
    if metric in _OF_ONE:
        return _OF_ONE[metric](predictions, labels)
    positive = max(labels) if judged.positive is None else judged.positive
    if metric == "f1":
        return f1_rows(predictions, labels, positive)
    check_rows(predictions, judged.groups)
    if metric == "group_f1":
        return group_f1_rows(predictions, labels, judged.groups, positive)
    return group_exact_match_rows(predictions, labels, judged.groups)


def score_predictions(
    metrics: Sequence[Metric],
    predictions: Sequence[str],
    judged: Judged | Sequence[Sequence[str]],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Every metric of `metrics` with its interval."""
    statistics = {metric: row_statistics(metric, predictions, judged) for metric in metrics}
    return Evaluation(
        scores={metric: rows.total() for metric, rows in statistics.items()},
        intervals={
            metric: bootstrap_interval(rows, resamples=resamples, seed=seed)
            for metric, rows in statistics.items()
        },
        signatures={metric: rows.signature for metric, rows in statistics.items()},
        predictions=tuple(predictions),
    )
