"""The page of a pre-training run: its curves, what it did with a held-out text, what went wrong, its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unmask.report import (
    Block,
    Column,
    Curves,
    Heading,
    KeyFacts,
    Page,
    Paragraph,
    Sample,
    Samples,
    Series,
    Table,
    Token,
    TokenMap,
    write_page,
)
from unmask.training.meter import MEASURED, with_prefix

#: The page of a run, in its directory.
REPORT = "report.html"
#: At most so many samples, spread over the run.
SHOWN_SAMPLES = 8

Line = Mapping[str, Any]


def write_run_page(
    path: Path, lines: Sequence[Line], recipe: Mapping[str, Any], facts: Mapping[str, str]
) -> None:
    """Write the page of a run. The same log gives the same bytes.

    Args:
        lines: the whole metrics log, in the order of steps.
        recipe: the settings.
        facts: what else there is to say at the beginning: name → text.
    """
    title = f"Pre-training: {recipe['family']}, {recipe['steps']:,} steps"
    blocks: list[Block] = [KeyFacts([*facts.items(), *_key_facts(lines)])]
    blocks += [Heading("Curves"), *_curves(lines), *_samples(_of(lines, "sample")), *_troubles(lines)]
    chosen = [[name, str(value)] for name, value in recipe.items() if value is not None]
    blocks += [Heading("Settings"), Table("What the recipe and its defaults say", ["", ""], chosen)]
    write_page(path, Page(title, blocks))


def _of(lines: Sequence[Line], kind: str) -> list[Line]:
    return [line for line in lines if line["kind"] == kind]


def _key_facts(lines: Sequence[Line]) -> list[tuple[str, str]]:
    facts = []
    training = _of(lines, "training")
    for kind, words in (("evaluation", "held-out"), ("averaged", "averaged, held-out")):
        for line in _of(lines, kind)[-1:]:
            facts += [
                (f"{words} {_words(name)}", f"{value:.4f}")
                for name, value in line.items()
                if name not in ("step", "kind") and "/" not in name
            ]
    for name, show in (
        ("tokens_per_second", lambda value: f"{value:,.0f}"),
        ("flops_per_second", lambda value: f"{with_prefix(value)}FLOP/s"),
        ("share_of_peak", lambda value: f"{value:.0%}"),
    ):
        values = sorted(line[name] for line in training if name in line)
        if values:
            facts.append((f"{_words(name)}, median", show(values[len(values) // 2])))
    most = max((line["memory_mib"] for line in training if "memory_mib" in line), default=None)
    if most is not None:
        facts.append(("memory, peak", f"{most:,.0f} MiB"))
    return [*facts, ("steps skipped", str(len(_of(lines, "skipped"))))]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _curves(lines: Sequence[Line]) -> list[Block]:
    training, evaluation = _of(lines, "training"), _of(lines, "evaluation")
    names = [name for name in _names(training, evaluation) if name not in (*MEASURED, "learning_rate")]
    blocks: list[Block] = []
    for name in (each for each in names if "/" not in each):
        series = [
            *_series("training", training, name),
            *_series("held-out text", evaluation, name),
            *(
                part
                for own in names
                if own.startswith(f"{name}/")
                for part in _series(f"held-out: {own.removeprefix(f'{name}/')}", evaluation, own)
            ),
        ]
        blocks.append(Curves(_words(name).capitalize(), series, "step", _words(name)))
    for name in ("learning_rate", *MEASURED):
        series = _series(_words(name), training, name)
        if series:
            blocks.append(Curves(_words(name).capitalize(), series, "step", _words(name)))
    return blocks


def _names(*kinds: Sequence[Line]) -> list[str]:
    """Of all measurements, in the order in which they appear."""
    found = {name: None for lines in kinds for line in lines for name in line}
    return [name for name in found if name not in ("step", "kind")]


def _series(title: str, lines: Sequence[Line], name: str) -> list[Series]:
    points = [(line["step"], line[name]) for line in lines if name in line]
    return [Series(title, [x for x, _ in points], [y for _, y in points])] if points else []


def _samples(lines: Sequence[Line]) -> list[Block]:
    if not lines:
        return []
    count = min(SHOWN_SAMPLES, len(lines))
    shown = [lines[number * (len(lines) - 1) // max(1, count - 1)] for number in range(count)]
    blocks: list[Block] = [Heading("A held-out text as it went")]
    if "input" in lines[0]:
        samples = [
            Sample(f"step {line['step']}: {line['input']}", line["output"], [line["wanted"]])
            for line in shown
        ]
        return [*blocks, Samples("What the model wrote", samples)]
    for line in shown:
        tokens = [
            Token(f"{line['replaced'][place]}→{text}" if place in line["replaced"] else text, suspicion)
            for place, text, suspicion in zip(
                map(str, range(len(line["tokens"]))), line["tokens"], line["suspicion"], strict=True
            )
        ]
        blocks.append(TokenMap(f"Step {line['step']}", tokens, "probability that the token was replaced"))
    return blocks


def _troubles(lines: Sequence[Line]) -> list[Block]:
    troubles = [line for line in lines if line["kind"] in ("warning", "skipped")]
    blocks: list[Block] = [Heading("What went wrong")]
    if not troubles:
        return [*blocks, Paragraph("Nothing was noticed.")]
    columns: list[Column | str] = [Column("step", numeric=True), "", ""]
    rows = [[line["step"], line["kind"], line["message"]] for line in troubles]
    return [*blocks, Table("Warnings and skipped steps", columns, rows)]
