"""What cleaning did: counts and samples, kept by each task and added up afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Self

#: Samples kept of what a rule dropped, and the characters of each that are shown.
SAMPLES = 3
SAMPLE_CHARACTERS = 300


def around(text: str, place: int) -> str:
    """The passage of a text that shows what stands at a place."""
    begin = max(0, place - SAMPLE_CHARACTERS // 3)
    return ("…" if begin else "") + text[begin : begin + SAMPLE_CHARACTERS]


@dataclass
class Dropped:
    """What one rule dropped: whole documents, or lines of documents.

    Attributes:
        documents, lines, characters: counts.
        samples: the first of them in corpus order, as (document's name, what the rule met, or the beginning of
            what was dropped).
    """

    documents: int = 0
    lines: int = 0
    characters: int = 0
    samples: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, text: str, passage: str | None = None) -> None:
        self.characters += len(text)
        if len(self.samples) < SAMPLES:
            self.samples.append((name, (text if passage is None else passage)[:SAMPLE_CHARACTERS]))


@dataclass
class StepLedger:
    """What one step did.

    Attributes:
        documents_in, documents_out, characters_in, characters_out: counts.
        changed: documents that it let pass with another text.
        rules: name of a rule → what it dropped. Lines are counted where they are dropped, also on documents
            that another rule then drops whole.
    """

    documents_in: int = 0
    characters_in: int = 0
    documents_out: int = 0
    characters_out: int = 0
    changed: int = 0
    rules: dict[str, Dropped] = field(default_factory=dict)

    def drop_line(self, rule: str, name: str, line: str) -> None:
        dropped = self.rules.setdefault(rule, Dropped())
        dropped.lines += 1
        dropped.add(name, line)

    def drop_document(self, rule: str, name: str, text: str, passage: str | None = None) -> None:
        """Args:
        passage: the sample: what the rule met; None: the beginning of the text.
        """
        dropped = self.rules.setdefault(rule, Dropped())
        dropped.documents += 1
        dropped.add(name, text, passage)


@dataclass
class Ledger:
    """What all steps of a task did.

    Attributes:
        steps: name of a step → what it did, in the order in which they ran.
        lengths_in, lengths_out: bits of a length in characters → documents of that length, as read and as
            written: 8 counts lengths from 128 to 255.
        languages: language → documents, where a language filter ran.
        skipped: files that could not be read, with the reason.
    """

    steps: dict[str, StepLedger] = field(default_factory=dict)
    lengths_in: Counter[int] = field(default_factory=Counter)
    lengths_out: Counter[int] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def step(self, name: str) -> StepLedger:
        return self.steps.setdefault(name, StepLedger())

    def as_json(self) -> dict[str, Any]:
        """As JSON takes it. Steps are a list, which keeps its order in any reader's hands."""
        return {
            "steps": [asdict(step) | {"name": name} for name, step in self.steps.items()],
            "lengths_in": {str(bits): number for bits, number in self.lengths_in.items()},
            "lengths_out": {str(bits): number for bits, number in self.lengths_out.items()},
            "languages": dict(self.languages),
            "skipped": self.skipped,
        }

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Self:
        return cls(
            steps=dict(_step_from_json(step) for step in table["steps"]),
            lengths_in=Counter({int(bits): number for bits, number in table["lengths_in"].items()}),
            lengths_out=Counter({int(bits): number for bits, number in table["lengths_out"].items()}),
            languages=Counter(table["languages"]),
            skipped=[(file, reason) for file, reason in table["skipped"]],
        )

    @classmethod
    def total(cls, ledgers: Iterable[Ledger]) -> Self:
        """The sum, with the first samples of each rule. The order of the ledgers is that of the corpus."""
        total = cls()
        for ledger in ledgers:
            for name, step in ledger.steps.items():
                _add_step(total.step(name), step)
            total.lengths_in += ledger.lengths_in
            total.lengths_out += ledger.lengths_out
            total.languages += ledger.languages
            total.skipped += ledger.skipped
        return total


def _step_from_json(table: dict[str, Any]) -> tuple[str, StepLedger]:
    rules = {
        name: Dropped(**rule | {"samples": [(document, text) for document, text in rule["samples"]]})
        for name, rule in table["rules"].items()
    }
    counts = {name: value for name, value in table.items() if name not in ("name", "rules")}
    return table["name"], StepLedger(**counts, rules=rules)


def _add_step(total: StepLedger, step: StepLedger) -> None:
    for count in ("documents_in", "characters_in", "documents_out", "characters_out", "changed"):
        setattr(total, count, getattr(total, count) + getattr(step, count))
    for name, rule in step.rules.items():
        dropped = total.rules.setdefault(name, Dropped())
        dropped.documents += rule.documents
        dropped.lines += rule.lines
        dropped.characters += rule.characters
        dropped.samples = (dropped.samples + rule.samples)[:SAMPLES]
