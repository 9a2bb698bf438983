"""Scores of answers: SQuAD's (Rajpurkar et al. 2016; `evaluate-v1.1.py` and `evaluate-v2.0.py`), and MLQA's for Chinese
(Lewis et al. 2020, `mlqa_evaluation_v1.py`)."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

from unmask.tasks.metrics.statistics import RowStatistics, ratio
from unmask.tasks.metrics.text import hits_and_ones

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_CHINESE = re.compile("[\u4e00-\u9fa5]")


def normalised(answer: str) -> str:
    """Lower case, without punctuation and English articles, white space as single spaces."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def normalised_chinese(answer: str) -> str:
    """Lower case, without any script's punctuation, each Chinese character a word of its own."""
    kept = "".join(letter for letter in answer.lower() if not _is_punctuation(letter))
    return " ".join(_CHINESE.sub(r" \g<0> ", kept).split())


@cache
def _is_punctuation(letter: str) -> bool:
    return letter in string.punctuation or unicodedata.category(letter).startswith("P")


#: The first word of a metric's name → how answers are made alike.
_NORMALISED = {"squad": normalised, "mlqa": normalised_chinese}


def exact_answer_rows(
    name: str, predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> RowStatistics:
    """The share of answers that equal a reference after normalisation, 0 to 100.

    Args:
        name: squad_exact_match or mlqa_zh_exact_match.
    """
    return _best(name, lambda one, other: float(one == other), predictions, references)


def answer_f1_rows(
    name: str, predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> RowStatistics:
    """The mean F1 of the words shared with the best reference, 0 to 100. Where either has no words (SQuAD 2's "no
    answer"), it is 1 if neither has, else 0.

    Args:
        name: squad_f1 or mlqa_zh_f1.
    """
    return _best(name, _f1, predictions, references)


def _best(
    name: str,
    score: Callable[[str, str], float],
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
) -> RowStatistics:
    source = name.split("_")[0]
    alike = _NORMALISED[source]
    values = [
        max(score(alike(prediction), alike(reference)) for reference in row)
        for prediction, row in zip(predictions, references, strict=True)
    ]
    return RowStatistics(name, f"normalised:{source}", hits_and_ones(values), lambda sums: 100 * ratio(sums))


def _f1(prediction: str, reference: str) -> float:
    predicted, wanted = prediction.split(), reference.split()
    if not predicted or not wanted:
        return float(predicted == wanted)
    shared = sum((Counter(predicted) & Counter(wanted)).values())
    return 2 * shared / (len(predicted) + len(wanted)) if shared else 0.0
