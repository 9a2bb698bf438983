"""An evaluation as tables, for the terminal, and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unmask.report import (
    Block,
    Cell,
    Column,
    Estimate,
    Heading,
    KeyFacts,
    Page,
    Paragraph,
    Sample,
    Samples,
    Table,
)
from unmask.tasks.error_analysis import VALUES, Slice, by_length, by_value, confusion, worst_rows
from unmask.tasks.evaluation import HeldOut
from unmask.tasks.kinds.kind import Prediction, Row
from unmask.tasks.metrics import Difference, Evaluation, Metric
from unmask.tasks.presentation import METRIC_NAMES, decimals, estimate, score_table

#: What the two systems of a comparison are called.
THIS, OTHER = "this model", "the other model"
#: Characters of a text that a page shows.
SHOWN = 1500


@dataclass(frozen=True)
class Report:
    """Everything about an evaluation.

    Attributes:
        evaluations: by system: baselines, THIS, OTHER where there is one.
        predictions: of THIS, one for each row.
        differences: THIS minus OTHER; none without another.
    """

    held_out: HeldOut
    model: str
    other: str | None
    evaluations: Mapping[str, Evaluation]
    predictions: Sequence[Prediction]
    differences: Mapping[Metric, Difference]

    @property
    def texts(self) -> list[str]:
        return [prediction.text for prediction in self.predictions]

    def tables(self) -> list[Table]:
        """What the terminal shows."""
        scores = score_table(self.held_out.task, self.evaluations, len(self.held_out.rows))
        differences = [difference_table(self.differences)] if self.differences else []
        return [scores, *differences, *map(self._by_value, self.held_out.task.slices)]

    def slices(self, column: str) -> dict[str, list[Slice]]:
        """System → its scores by the values of one of the task's `slices` columns."""
        return {
            name: by_value(self.held_out, evaluation.predictions, column)
            for name, evaluation in self.evaluations.items()
            if name in (THIS, OTHER)
        }

    def _by_value(self, column: str) -> Table:
        metric = self.held_out.task.metrics[0]
        found = self.slices(column)
        name = METRIC_NAMES[metric]
        heads = [name] if len(found) == 1 else [f"{name} of {system}" for system in found]
        columns: list[Column | str] = [
            column,
            Column("rows", numeric=True),
            *(Column(head, decimals=decimals(metric), numeric=True) for head in heads),
        ]
        rows: list[Sequence[Cell]] = [
            (
                parts[0].name or "(none)",
                parts[0].evaluation.rows,
                *(estimate(p.evaluation, metric) for p in parts),
            )
            for parts in zip(*found.values(), strict=True)
        ]
        most = f"; the {VALUES} most frequent values" if len(rows) >= VALUES else ""
        return Table(f"By {column}, 95 % bootstrap intervals{most}", columns, rows)

    def page(self) -> Page:
        """The whole report."""
        task = self.held_out.task
        facts = [("task", f"{task.name} ({task.kind})"), ("model", self.model)]
        if self.other is not None:
            facts.append(("other model", self.other))
        facts += [
            (f"{METRIC_NAMES[metric]}, computed by", self.evaluations[THIS].signatures[metric])
            for metric in task.metrics
        ]
        blocks: list[Block] = [
            KeyFacts(facts),
            *self.tables(),
            *self._confusion(),
            *self._slices(),
            *self._worst(),
        ]
        return Page(f"{task.name}: evaluation", blocks)

    def _confusion(self) -> list[Block]:
        if self.held_out.task.its_kind.head != "label":
            return []
        found = confusion(self.held_out.rows, self.texts)
        columns: list[Column | str] = ["true", *(Column(label, numeric=True) for label in found.labels)]
        rows: list[Sequence[Cell]] = [
            (label, *counts) for label, counts in zip(found.labels, found.counts, strict=True)
        ]
        return [Heading("Confusion"), Table("Rows by their label, columns by the answer", columns, rows)]

    def _slices(self) -> list[Block]:
        metric = self.held_out.task.metrics[0]
        columns: list[Column | str] = [
            "characters of the input",
            Column("rows", numeric=True),
            Column(METRIC_NAMES[metric], decimals=decimals(metric), numeric=True),
        ]
        rows: list[Sequence[Cell]] = [
            (part.name, part.evaluation.rows, estimate(part.evaluation, metric))
            for part in by_length(self.held_out, self.texts)
        ]
        return [Heading("By length"), Table("Quarters of the rows, 95 % bootstrap intervals", columns, rows)]

    def _worst(self) -> list[Block]:
        places = worst_rows(self.held_out, self.predictions)
        if not places:
            return [Heading("Worst answers"), Paragraph("No answer is wrong.")]
        samples = []
        for place in places:
            found, row = self.predictions[place], self.held_out.rows[place]
            sure = "" if found.confidence is None else f" ({found.confidence:.0%} sure)"
            answer = f"{_named(row, found.text)}{sure}"
            wanted = [_named(row, reference) for reference in row.references]
            samples.append(Sample(_cut(" / ".join((*row.sources, *row.choices))), _cut(answer), wanted))
        return [Heading("Worst answers"), Samples("The worst rows first", samples)]


def _named(row: Row, answer: str) -> str:
    """An answer as it is read: of a choice also its text."""
    return f"{answer}: {row.choices[int(answer)]}" if row.choices and answer.isdecimal() else answer


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} …"


def difference_table(differences: Mapping[Metric, Difference]) -> Table:
    """THIS minus OTHER in each metric, with the paired bootstrap's interval."""
    columns: list[Column | str] = ["metric", Column("difference", decimals=3, numeric=True), "verdict"]
    rows: list[Sequence[Cell]] = [
        (
            METRIC_NAMES[metric],
            Estimate(found.value, found.low, found.high),
            "more than chance explains" if found.is_clear else "within what chance explains",
        )
        for metric, found in differences.items()
    ]
    return Table(f"{THIS} minus {OTHER}, 95 % paired bootstrap intervals", columns, rows)
