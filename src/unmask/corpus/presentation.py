"""What became of a corpus, as tables for the terminal and as a page."""

from __future__ import annotations

from unmask.corpus.ledger import Ledger, StepLedger
from unmask.corpus.pipeline import SPLITS, Corpus
from unmask.corpus.recipe import STEPS
from unmask.report import Block, Cell, Column, Curves, Heading, KeyFacts, Page, Paragraph, Series, Table

#: Languages shown by name; the others are one row.
_LANGUAGES = 20


def step_table(corpus: Corpus) -> Table:
    """Documents and characters that each step left, in the order of the steps; it took those of the row above."""
    read = corpus.ledger.step("read")
    rows: list[list[Cell]] = [["read", read.documents_out, None, read.characters_out, None, None]]
    rows += [
        [
            name,
            step.documents_out,
            _share(step.documents_out, step.documents_in),
            step.characters_out,
            _share(step.characters_out, step.characters_in),
            step.changed,
        ]
        for name, step in _steps(corpus)
    ]
    names = ["documents left", "%", "characters left", "%", "documents changed"]
    columns = [Column(name, decimals=1, numeric=True) for name in names]
    return Table("Steps, in their order", ["step", *columns], rows)


def _steps(corpus: Corpus) -> list[tuple[str, StepLedger]]:
    return [(name, corpus.ledger.step(name)) for name in corpus.recipe["steps"]]


def _share(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None


def rule_table(corpus: Corpus) -> Table:
    """What each rule dropped, the most first within a step."""
    rows: list[list[Cell]] = [
        [name, rule, dropped.documents or None, dropped.lines or None, dropped.characters]
        for name, step in _steps(corpus)
        for rule, dropped in sorted(step.rules.items(), key=lambda item: -item[1].characters)
    ]
    columns = [Column(name, numeric=True) for name in ("docs", "lines", "chars")]
    return Table("Dropped, by rule", ["step", "rule", *columns], rows)


def split_table(ledger: Ledger) -> Table:
    """Documents and characters read, and written to each split."""
    read = ledger.step("read")
    rows: list[list[Cell]] = [["read", read.documents_out, read.characters_out]]
    for split in SPLITS:
        step = ledger.steps.get(split)
        rows.append([split, step.documents_out if step else 0, step.characters_out if step else 0])
    columns = [Column("documents", numeric=True), Column("characters", numeric=True)]
    return Table("Read and written", ["", *columns], rows)


def language_table(ledger: Ledger) -> Table:
    """Documents that reached the language filter, by language."""
    common = ledger.languages.most_common(_LANGUAGES)
    rows: list[list[Cell]] = [[language, documents] for language, documents in common]
    if others := ledger.languages.total() - sum(documents for _, documents in common):
        rows.append([f"{len(ledger.languages) - len(common)} others", others])
    return Table("Languages found", ["language", Column("documents", numeric=True)], rows)


def skipped_table(ledger: Ledger) -> Table:
    """Files that could not be read."""
    return Table(f"Files left out: {len(ledger.skipped)}", ["file", "why"], ledger.skipped)


def page(corpus: Corpus) -> Page:
    """The whole report. The same corpus gives the same page."""
    ledger = corpus.ledger
    blocks: list[Block] = [
        KeyFacts(_facts(corpus)),
        split_table(ledger),
        Heading("Steps"),
        _meanings(corpus),
        step_table(corpus),
        rule_table(corpus),
        Paragraph(
            "Lines are counted where they are dropped, also on documents that another rule then drops whole, so "
            "the rules' characters add up to more than the steps'."
        ),
        Heading("Samples of what was dropped"),
        _samples(corpus),
        Heading("Lengths"),
        _lengths(ledger),
    ]
    if ledger.languages:
        blocks += [Heading("Languages"), language_table(ledger)]
    if ledger.skipped:
        blocks += [Heading("Files left out"), skipped_table(ledger)]
    return Page("Corpus report", blocks)


def _meanings(corpus: Corpus) -> Table:
    return Table(
        "What each step looks at", ["step", "looks at"], [[name, STEPS[name]] for name, _ in _steps(corpus)]
    )


def _facts(corpus: Corpus) -> list[tuple[str, str]]:
    steps = corpus.recipe["steps"]
    return [
        ("input files", f"{len(corpus.inputs):,}"),
        ("files left out", f"{len(corpus.ledger.skipped):,}"),
        ("steps", ", ".join(steps) or "none"),
        ("validation share", f"{corpus.recipe['validation_share']:g}"),
    ]


def _samples(corpus: Corpus) -> Table:
    rows = [
        [f"{name}: {rule}", document, text]
        for name, step in _steps(corpus)
        for rule, dropped in step.rules.items()
        for document, text in dropped.samples
    ]
    return Table(
        "The first of each rule: what it met, or the beginning of the document, cut to 300 characters",
        ["rule", "document", "text"],
        rows,
    )


def _lengths(ledger: Ledger) -> Curves:
    used = set(ledger.lengths_in) | set(ledger.lengths_out)
    bits = range(min(used, default=1), max(used, default=1) + 1)
    # At the geometric middle of [2^(bits - 1), 2^bits).
    middles = [2 ** (bit - 0.5) for bit in bits]
    series = [
        Series(name, middles, [float(lengths[bit]) for bit in bits])
        for name, lengths in (("read", ledger.lengths_in), ("written", ledger.lengths_out))
    ]
    return Curves(
        "Documents by length, a point for each doubling", series, "characters", "documents", log_x=True
    )
