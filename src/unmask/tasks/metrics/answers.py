"""SQuAD's scores of answers (Rajpurkar et al. 2016; `evaluate-v1.1.py` and `evaluate-v2.0.py`)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from unmask.tasks.metrics.statistics import RowStatistics, ratio
from unmask.tasks.metrics.text import hits_and_ones

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalised(answer: str) -> str:
    """Lower case, without punctuation and English articles, white space as single spaces."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def squad_exact_match_rows(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> RowStatistics:
    """The share of answers that equal a reference after normalisation, 0 to 100."""
    return _best("squad_exact_match", lambda one, other: float(normalised(one) == normalised(other)))(
        predictions, references
    )


def squad_f1_rows(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> RowStatistics:
    """The mean F1 of the words shared with the best reference, 0 to 100. Where either has no words (SQuAD 2's "no
    answer"), it is 1 if neither has, else 0."""
    return _best("squad_f1", _f1)(predictions, references)


def _best(
    name: str, score: Callable[[str, str], float]
) -> Callable[[Sequence[str], Sequence[Sequence[str]]], RowStatistics]:
    def rows(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> RowStatistics:
        values = [
            max(score(prediction, reference) for reference in row)
            for prediction, row in zip(predictions, references, strict=True)
        ]
        return RowStatistics(name, "normalised:squad", hits_and_ones(values), lambda sums: 100 * ratio(sums))

    return rows


def _f1(prediction: str, reference: str) -> float:
    predicted, wanted = normalised(prediction).split(), normalised(reference).split()
    if not predicted or not wanted:
        return float(predicted == wanted)
    shared = sum((Counter(predicted) & Counter(wanted)).values())
    return 2 * shared / (len(predicted) + len(wanted)) if shared else 0.0
