"""Scores as a table, for the terminal and for pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unmask.report import Cell, Column, Estimate, Table
from unmask.tasks.metrics import Evaluation, Metric
from unmask.tasks.task import Task

#: What a metric is called where people read it.
METRIC_NAMES = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "exact_match": "exact match",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
}


def score_table(task: Task, evaluations: Mapping[str, Evaluation], rows: int) -> Table:
    """One line a system, one column a metric, with 95 % intervals."""
    columns: list[Column | str] = [
        "system",
        *(
            Column(METRIC_NAMES[metric], decimals=_decimals(metric), best="highest")
            for metric in task.metrics
        ),
    ]
    lines: list[Sequence[Cell]] = [
        (name, *(_estimate(evaluation, metric) for metric in task.metrics))
        for name, evaluation in evaluations.items()
    ]
    return Table(f"{task.name}: {rows} held-out rows, 95 % bootstrap intervals", columns, lines)


def _decimals(metric: str) -> int:
    return 1 if metric in ("bleu", "chrf") else 3


def _estimate(evaluation: Evaluation, metric: Metric) -> Estimate:
    interval = evaluation.intervals[metric]
    return Estimate(evaluation.scores[metric], interval.low, interval.high)


def as_json(evaluation: Evaluation) -> dict[str, dict[str, float | str]]:
    """Scores, intervals and signatures of one system, as metrics.json holds them."""
    return {
        metric: {
            "score": score,
            "low": evaluation.intervals[metric].low,
            "high": evaluation.intervals[metric].high,
            "signature": evaluation.signatures[metric],
        }
        for metric, score in evaluation.scores.items()
    }
