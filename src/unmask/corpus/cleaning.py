"""A step of cleaning: a rule applied to every document, with its accounts."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from unmask.corpus.ledger import Ledger, StepLedger
from unmask.corpus.parts import Documents


class Drop(NamedTuple):
    """Why a document is dropped.

    Attributes:
        rule: name of the rule.
        passage: what it met, for the report; None: the report shows the document's beginning.
    """

    rule: str
    passage: str | None = None


class Cleaner(Protocol):
    """One subject of cleaning. It is sent to other processes: settings only, what is heavy is loaded on use."""

    def __call__(self, document: Document, step: StepLedger) -> Drop | None:
        """Put a document right in place.

        Args:
            document: its text may be changed.
            step: takes note of dropped lines.

        Returns:
            None to keep the document, or the rule that drops it.
        """


class CleaningStep(PipelineStep):
    """Applies a cleaner to what passes, and keeps the accounts."""

    type = "cleaning"

    def __init__(self, name: str, cleaner: Cleaner, ledger: Ledger) -> None:
        self.name = name
        super().__init__()
        self._cleaner = cleaner
        self._ledger = ledger

    def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Documents:
        step = self._ledger.step(self.name)
        for document in data:
            before = document.text
            step.documents_in += 1
            step.characters_in += len(before)
            drop = self._cleaner(document, step)
            if drop is not None:
                step.drop_document(drop.rule, document.id, before, drop.passage)
                continue
            step.documents_out += 1
            step.characters_out += len(document.text)
            step.changed += document.text != before
            yield document
