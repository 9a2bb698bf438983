"""The files that an evaluation leaves: scores as JSON, predictions as JSON lines."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from unmask import hub
from unmask.tasks.evaluation_report import Report
from unmask.tasks.presentation import as_json
from unmask.tasks.results import check_results_path


def check_places(*paths: Path | None) -> None:
    """Raises:
    UserError: one of them cannot be written, said before any work is done.
    """
    for path in paths:
        if path is not None:
            check_results_path(path)


def write_scores(path: Path, report: Report) -> None:
    """Scores, intervals and signatures of every system, those by the task's `slices`, and this model's predictions."""
    hub.write_json(
        path,
        {
            "task": report.held_out.task.name,
            "scores": {name: as_json(evaluation) for name, evaluation in report.evaluations.items()},
            "differences": {metric: asdict(found) for metric, found in report.differences.items()},
            "slices": {
                column: {
                    system: {
                        part.name: {"rows": part.evaluation.rows, "scores": as_json(part.evaluation)}
                        for part in parts
                    }
                    for system, parts in report.slices(column).items()
                }
                for column in report.held_out.task.slices
            },
            "predictions": report.texts,
        },
    )


def write_predictions(path: Path, report: Report) -> None:
    """A line for each row: its number in the file, what was read, what was wanted, the answer, its confidence."""
    lines = []
    for row, found in zip(report.held_out.rows, report.predictions, strict=True):
        fields = {
            "row": row.number,
            "sources": row.sources,
            "references": row.references,
            "prediction": found.text,
        }
        if row.choices:
            fields["choices"] = row.choices
        if found.confidence is not None:
            fields["confidence"] = round(found.confidence, 6)
        lines.append(json.dumps(fields, ensure_ascii=False) + "\n")
    hub.write_atomically(path, "".join(lines))
