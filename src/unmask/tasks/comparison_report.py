"""An equal-compute comparison as tables, for the terminal and for a page."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from unmask.report import Cell, Column, Estimate, Heading, Page, Paragraph, Table
from unmask.tasks.comparison import Outcome, mean_difference
from unmask.tasks.comparison_settings import UNTRAINED
from unmask.tasks.presentation import METRIC_NAMES


def cost_table(outcome: Outcome) -> Table:
    """What each system's pre-training cost."""
    columns: list[Column | str] = [
        "system",
        Column("steps", numeric=True),
        Column("million tokens", decimals=2, numeric=True),
        Column("TFLOPs", decimals=2, numeric=True),
        Column("minutes", decimals=1, numeric=True),
        Column("GFLOP/s", decimals=1, numeric=True),
    ]
    rows: list[Sequence[Cell]] = [
        (
            name,
            cost.steps,
            cost.tokens / 1e6,
            cost.flops / 1e12,
            outcome.seconds[name] / 60,
            cost.flops / outcome.seconds[name] / 1e9,
        )
        for name, cost in outcome.costs.items()
    ]
    return Table("Pre-training: the same floating-point operations, counted by formula", columns, rows)


def score_tables(outcome: Outcome) -> list[Table]:
    """For each task the systems' means over seeds with their spread."""
    return [_score_table(outcome, name) for name in outcome.scores]


def _score_table(outcome: Outcome, task: str) -> Table:
    (metric,) = [each.task.metrics[0] for each in outcome.settings.tasks if each.task.name == task]
    columns: list[Column | str] = [
        "system",
        Column(f"{METRIC_NAMES[metric]}, mean [lowest, highest]", decimals=3, best="highest"),
        Column("standard deviation", decimals=3, numeric=True),
        "each seed",
    ]
    rows: list[Sequence[Cell]] = [
        (name, Estimate(score, score, score), None, "") for name, score in outcome.baselines[task].items()
    ]
    for name in (UNTRAINED, *outcome.costs):
        values = outcome.scores[task][name]
        mean = Estimate(statistics.fmean(values), min(values), max(values))
        rows.append((name, mean, statistics.stdev(values), " ".join(f"{value:.3f}" for value in values)))
    return Table(f"{task}: {outcome.settings.seeds} fine-tunings each", columns, rows)


def difference_table(outcome: Outcome) -> Table:
    """By how much the first system beats the others, with Welch's interval over seeds."""
    first, *others = outcome.costs
    columns: list[Column | str] = [
        "task",
        f"{first} minus",
        Column("difference", decimals=3, numeric=True),
        "verdict",
    ]
    rows: list[Sequence[Cell]] = []
    for task, scores in outcome.scores.items():
        for other in (*others, UNTRAINED):
            found = mean_difference(scores[first], scores[other])
            verdict = "more than the seeds explain" if found.is_clear else "within what the seeds explain"
            rows.append((task, other, Estimate(found.value, found.low, found.high), verdict))
    return Table("Differences of the means, with Welch's 95 % intervals", columns, rows)


def tables(outcome: Outcome) -> list[Table]:
    """All tables, in the report's order."""
    return [cost_table(outcome), *score_tables(outcome), difference_table(outcome)]


def page(outcome: Outcome) -> Page:
    """The report."""
    cost, *scores, differences = tables(outcome)
    return Page(
        outcome.settings.name,
        [
            Paragraph(
                "Systems of one size, pre-trained on the same text with the same number of floating-point operations "
                "and fine-tuned alike. The seeds vary the fine-tuning: its order, its dropout and its new head. Each "
                "system is pre-trained once, so differences between pre-training runs are not in the spread."
            ),
            Heading("Pre-training"),
            cost,
            Heading("Fine-tuning"),
            *scores,
            differences,
        ],
    )
