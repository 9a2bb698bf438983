"""`unmask evaluate`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from unmask.cli.machine import Machine


def evaluate(
    task: str,
    model: str,
    *,
    against: str | None = None,
    split: Literal["validation", "test"] | None = None,
    data: Path | None = None,
    out: Path | None = None,
    report: Path | None = None,
    predictions: Path | None = None,
    machine: Machine = Machine(),  # noqa: B008 (frozen)
) -> None:
    """Score a fine-tuned model on held-out rows, beside simple baselines.

    Args:
        task: the task's TOML file, or the name of one that is built in (`unmask task list`).
        model: a fine-tuned model directory or Hub name.
        against: another model, to compare with on the same rows by paired bootstrap.
        split: which rows; default: test where the task has a test file, else validation.
        data: (built-in tasks) the directory of the task's files; default: from the Hub.
        out: a JSON file for scores, intervals and predictions.
        report: an HTML file for all of it, with the confusion of labels, scores by length, and the worst
            answers.
        predictions: a JSON lines file with the answer to each row.
    """
    from rich.console import Console

    from unmask.report import print_table, write_page
    from unmask.tasks.evaluation import HeldOut
    from unmask.tasks.evaluation_files import check_places, write_predictions, write_scores
    from unmask.tasks.evaluation_report import OTHER, THIS, Report
    from unmask.tasks.library import find_task
    from unmask.tasks.metrics import unread
    from unmask.tasks.models import load_for_prediction

    check_places(out, report, predictions)
    chosen = find_task(task, data)
    held_out = HeldOut.read(chosen, split or chosen.held_out)
    for line in unread(chosen.metrics, [text for row in held_out.references for text in row]):
        logging.getLogger("unmask").warning("%s", line)
    device = machine.prepare()
    learner = load_for_prediction(chosen, model, device=device)
    held_out.check_labels_of(learner, model)
    found = learner.predict(held_out.rows)
    evaluations = held_out.baselines() | {THIS: held_out.score([one.text for one in found])}
    differences = {}
    if against is not None:
        other = load_for_prediction(chosen, against, device=device)
        held_out.check_labels_of(other, against)
        evaluations[OTHER] = held_out.model(other)
        differences = held_out.differences(evaluations[THIS], evaluations[OTHER])
    outcome = Report(held_out, model, against, evaluations, found, differences)
    for table in outcome.tables():
        print_table(table, Console())
    if out is not None:
        write_scores(out, outcome)
    if predictions is not None:
        write_predictions(predictions, outcome)
    if report is not None:
        write_page(report, outcome.page())
