"""Scores of written texts: sacrebleu's BLEU and chrF, rouge-score's ROUGE, equality."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unmask.tasks.metrics.statistics import RowStatistics, ratio

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric as SacrebleuMetric


#: BLEU by name → sacrebleu's tokenizer: words, Chinese characters and other words, characters.
_TOKENIZE = {"bleu": "13a", "bleu_zh": "zh", "bleu_char": "char"}


def bleu_rows(name: str, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> RowStatistics:
    """sacrebleu's corpus BLEU, 0 to 100. `references[i]` are the texts row i may match; rows may differ in
    how many they have.

    Args:
        name: bleu, bleu_zh or bleu_char.
    """
    from sacrebleu.metrics.bleu import BLEU

    # force: no warning about texts that end in " ."; the score is the same.
    return _sacrebleu(name, BLEU(force=True, tokenize=_TOKENIZE[name]), predictions, references)


def chrf_rows(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> RowStatistics:
    """sacrebleu's corpus chrF2, 0 to 100; of several references a row takes the one it is nearest to."""
    from sacrebleu.metrics.chrf import CHRF

    return _sacrebleu("chrf", CHRF(), predictions, references)


def exact_match_rows(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> RowStatistics:
    """The share of rows that equal one of their references, white space around them aside, 0 to 1."""
    hits = [
        prediction.strip() in {reference.strip() for reference in row}
        for prediction, row in zip(predictions, references, strict=True)
    ]
    return RowStatistics("exact_match", "strip:yes", hits_and_ones(hits), ratio)


def rouge_rows(name: str, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> RowStatistics:
    """rouge-score's F-measure with stemming, 0 to 1, the mean over rows; of several references a row takes its best.

    Args:
        name: rouge1, rouge2, or rouge_l (rouge-score's rougeL, without sentence splitting).
    """
    from rouge_score.rouge_scorer import RougeScorer

    kind = {"rouge_l": "rougeL"}.get(name, name)
    scorer = RougeScorer([kind], use_stemmer=True)
    values = [
        max(scorer.score(reference, prediction)[kind].fmeasure for reference in row)
        for prediction, row in zip(predictions, references, strict=True)
    ]
    signature = f"f-measure|stemmer:yes|refs:best|rouge-score:{version('rouge-score')}"
    return RowStatistics(name, signature, hits_and_ones(values), ratio)


def _sacrebleu(
    name: str, metric: SacrebleuMetric, predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> RowStatistics:
    # These two methods are how sacrebleu's own significance tests resample (sacrebleu/significance.py).
    values = metric._extract_corpus_statistics(list(predictions), _streams(references))

    def score(sums: NDArray[np.float64]) -> float:
        return float(metric._compute_score_from_stats(sums.tolist()).score)

    return RowStatistics(name, str(metric.get_signature()), np.array(values, dtype=np.float64), score)


def _streams(references: Sequence[Sequence[str]]) -> list[list[Any]]:
    """Row by row to sacrebleu's layout: a list for each place of a reference, None where a row has fewer."""
    places = max(len(row) for row in references)
    return [[row[place] if place < len(row) else None for row in references] for place in range(places)]


def hits_and_ones(hits: Sequence[float]) -> NDArray[np.float64]:
    """(rows, 2): what a mean over rows is the ratio of."""
    return np.stack([np.array(hits, dtype=np.float64), np.ones(len(hits))], axis=1)
