"""Scores of corrections: which edits of the input are right, by ERRANT's own code (Bryant et al. 2017, "Automatic
annotation and evaluation of error types for grammatical error correction").

Input, prediction and reference are words between white space. ERRANT aligns the input with each of the others; a word
that is changed, added, left out or moved is an edit, which is right where a reference has the same in the same place.
Of several references that one counts with which the score of the rows so far is highest, as in ERRANT's `compare_m2`.

ERRANT can also ask a tagger of English, which joins and names edits; here it sees words alone (its `-merge all-split`),
in any language and without a tagger's weights. Published figures have the tagger's joins, and differ.
"""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.tasks.metrics.statistics import RowStatistics

#: Precision counts twice as much as recall: a wrong correction is worse than a missing one (Ng et al. 2014, 4).
BETA = 0.5
#: Alignments that are remembered: every metric, and every system, asks for those of the references.
REMEMBERED = 1 << 16


def edit_f05_rows(
    predictions: Sequence[str], references: Sequence[Sequence[str]], sources: Sequence[str]
) -> RowStatistics:
    """ERRANT's F0.5 of edits, 0 to 1. 0 for an input that is copied, where something was to be corrected."""
    return RowStatistics("edit_f05", _signature(), _counts(predictions, references, sources), _f_score)


def edit_precision_rows(
    predictions: Sequence[str], references: Sequence[Sequence[str]], sources: Sequence[str]
) -> RowStatistics:
    """The share of the predicted edits that are right, 0 to 1; 1 where none is wrong, be it for want of any (ERRANT's
    way)."""
    values = _counts(predictions, references, sources)
    return RowStatistics("edit_precision", _signature(), values, lambda sums: _share(sums[0], sums[1]))


def edit_recall_rows(
    predictions: Sequence[str], references: Sequence[Sequence[str]], sources: Sequence[str]
) -> RowStatistics:
    """The share of the reference's edits that were made, 0 to 1; 1 where none is missing."""
    values = _counts(predictions, references, sources)
    return RowStatistics("edit_recall", _signature(), values, lambda sums: _share(sums[0], sums[2]))


def _signature() -> str:
    return f"beta:{BETA}|tagger:none|merge:all-split|refs:best|errant:{version('errant')}"


def _counts(
    predictions: Sequence[str], references: Sequence[Sequence[str]], sources: Sequence[str]
) -> NDArray[np.float64]:
    """(rows, 3): edits that are right, wrong, missing."""
    from errant.commands.compare_m2 import evaluate_edits

    settings = Namespace(beta=BETA, verbose=False)
    so_far = Counter({"tp": 0, "fp": 0, "fn": 0})
    values = []
    for prediction, row, source in zip(predictions, references, sources, strict=True):
        wanted = {number: _edits(source, reference) for number, reference in enumerate(row)}
        found, _ = evaluate_edits({0: _edits(source, prediction)}, wanted, so_far, 0, source, settings)
        so_far.update(found)
        values.append((found["tp"], found["fp"], found["fn"]))
    return np.array(values, dtype=np.float64)


@lru_cache(maxsize=REMEMBERED)
def _edits(source: str, other: str) -> dict[tuple[int, int, str], list[str]]:
    """What makes one text the other: (first word, end, words instead) → a kind for each time it is there, as
    `compare_m2` takes them; kinds are not told apart."""
    from errant.alignment import Alignment

    found: dict[tuple[int, int, str], list[str]] = {}
    for edit in Alignment(_words(source), _words(other)).get_all_split_edits():
        found.setdefault((edit.o_start, edit.o_end, edit.c_str), []).append("edit")
    return found


def _words(text: str) -> Any:
    """A text as ERRANT takes it, without tags."""
    from spacy.tokens import Doc

    return Doc(_vocabulary(), words=text.split())


@lru_cache(maxsize=1)
def _vocabulary() -> Any:
    # A language's: a bare one knows no lower case, which ERRANT compares.
    import spacy

    return spacy.blank("xx").vocab


def _share(right: float, other: float) -> float:
    return float(right / (right + other)) if other else 1.0


def _f_score(sums: NDArray[np.float64]) -> float:
    right, wrong, missing = sums
    precision, recall = _share(right, wrong), _share(right, missing)
    weighted = BETA**2 * precision + recall
    return (1 + BETA**2) * precision * recall / weighted if weighted else 0.0
