"""What came of several fine-tunings, as tables."""

from __future__ import annotations

from unmask.report import Cell, Column, Table
from unmask.tasks.search import Found
from unmask.tasks.seeds import Spread


def seed_table(spread: Spread) -> Table:
    """A line a seed; the caption has the median and the ends."""
    scores = spread.scores.values()
    failed = f", {len(spread.failed)} failed" if spread.failed else ""
    caption = (
        f"{spread.metric} on the validation rows: median {spread.median:.4g}, "
        f"{min(scores):.4g} to {max(scores):.4g}{failed}"
    )
    runs = sorted({**spread.scores, **spread.failed}.items())
    lines: list[list[Cell]] = [
        [
            str(seed),
            score,
            "failed" if seed in spread.failed else "kept" if seed == spread.chosen else "",
        ]
        for seed, score in runs
    ]
    return Table(caption, ["seed", Column(spread.metric, decimals=4), ""], lines)


def trial_table(found: Found) -> Table:
    """A line a trial, the best one marked."""
    names = list(found.trials[0])[1:]
    lines: list[list[Cell]] = [
        [
            str(line["trial"]),
            *(f"{line[name]:.4g}" if isinstance(line[name], float) else str(line[name]) for name in names),
            "best" if line["trial"] == found.best else "",
        ]
        for line in found.trials
    ]
    return Table("Trials", ["trial", *names, ""], lines)
