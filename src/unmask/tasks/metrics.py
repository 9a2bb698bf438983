"""Scores of predictions against references, each with its interval, by the field's own code.

BLEU and chrF are sacrebleu's and go from 0 to 100; accuracy and macro-F1 are scikit-learn's and go, as exact
match does, from 0 to 1. A corpus score is not a mean over rows, but each of these is a function of sums over
rows: `row_statistics` holds the summands, so that resampling rows costs a sum, not a new scoring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric as SacrebleuMetric

Metric = Literal["bleu", "chrf", "exact_match", "accuracy", "macro_f1"]
METRICS: tuple[Metric, ...] = get_args(Metric)

RESAMPLES = 1000
COVERAGE = 0.95


@dataclass(frozen=True)
class Score:
    """A score with what it takes to compute the same number again (sacrebleu's notion of a signature)."""

    value: float
    signature: str


@dataclass(frozen=True)
class Interval:
    """The two ends of a 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """How much higher the first system scores than the second on the same rows, with its 95 % interval.

    Where the interval leaves out zero, the difference is more than chance in the choice of rows.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class RowStatistics:
    """What each row adds to the sums that a corpus score is computed from.

    Args:
        metric: which score.
        signature: how it is computed.
        values: (rows, statistics).
        score: the corpus score of a (statistics,) sum over rows.
    """

    metric: Metric
    signature: str
    values: NDArray[np.float64]
    score: Callable[[NDArray[np.float64]], float]

    def total(self) -> float:
        """The score of all rows, each once."""
        return self.score(self.values.sum(axis=0))


@dataclass(frozen=True)
class Evaluation:
    """What a system scored on a set of rows.

    Args:
        scores: metric → score.
        intervals: metric → 95 % bootstrap interval of that score.
        signatures: metric → how it was computed.
        predictions: one for each row, in the rows' order.
    """

    scores: Mapping[str, float]
    intervals: Mapping[str, Interval]
    signatures: Mapping[str, str]
    predictions: tuple[str, ...]

    @property
    def rows(self) -> int:
        return len(self.predictions)


def score_predictions(
    metrics: Sequence[Metric],
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Every metric of `metrics` with its interval. `references` holds texts, or one label, a row."""
    statistics = {metric: row_statistics(metric, predictions, references) for metric in metrics}
    return Evaluation(
        scores={metric: rows.total() for metric, rows in statistics.items()},
        intervals={
            metric: bootstrap_interval(rows, resamples=resamples, seed=seed)
            for metric, rows in statistics.items()
        },
        signatures={metric: rows.signature for metric, rows in statistics.items()},
        predictions=tuple(predictions),
    )


def bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """sacrebleu's corpus BLEU, 0 to 100. `references[i]` are the texts row i may match; rows may differ in
    how many they have."""
    return _sacrebleu(_bleu_metric(), predictions, references)


def chrf(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """sacrebleu's corpus chrF2, 0 to 100; of several references a row takes the one it is nearest to."""
    return _sacrebleu(_chrf_metric(), predictions, references)


def exact_match(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """The share of rows that equal one of their references, white space around them aside, 0 to 1."""
    return _score("exact_match", predictions, references)


def accuracy(predictions: Sequence[str], labels: Sequence[str]) -> Score:
    """scikit-learn's accuracy, 0 to 1."""
    from sklearn.metrics import accuracy_score

    _check_rows(predictions, labels)
    return Score(float(accuracy_score(list(labels), list(predictions))), _sklearn_signature())


def macro_f1(predictions: Sequence[str], labels: Sequence[str]) -> Score:
    """scikit-learn's F1, 0 to 1: its mean over the classes found in predictions or labels, each counting
    the same. A class that is never predicted, or never right, counts 0."""
    from sklearn.metrics import f1_score

    _check_rows(predictions, labels)
    value = f1_score(list(labels), list(predictions), average="macro", zero_division=0.0)
    return Score(float(value), _sklearn_signature("average:macro", "zero_division:0"))


def row_statistics(
    metric: Metric, predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> RowStatistics:
    """What each row adds to the score of `metric`.

    Raises:
        ValueError: no rows, not as many predictions as rows, a row without a reference, or with several
            labels.
    """
    _check_rows(predictions, references)
    if any(not row for row in references):
        raise ValueError(f"row {[not row for row in references].index(True) + 1} has no reference")
    if metric == "bleu":
        return _sacrebleu_statistics(metric, _bleu_metric(), predictions, references)
    if metric == "chrf":
        return _sacrebleu_statistics(metric, _chrf_metric(), predictions, references)
    if metric == "exact_match":
        hits = [
            prediction.strip() in {reference.strip() for reference in row}
            for prediction, row in zip(predictions, references, strict=True)
        ]
        return RowStatistics(metric, "strip:yes", _hits_and_ones(hits), _ratio)
    if any(len(row) != 1 for row in references):
        raise ValueError(f"{metric} takes one label a row")
    labels = [row[0] for row in references]
    if metric == "accuracy":
        hits = [prediction == label for prediction, label in zip(predictions, labels, strict=True)]
        return RowStatistics(metric, _sklearn_signature(), _hits_and_ones(hits), _ratio)
    signature = _sklearn_signature("average:macro", "zero_division:0")
    return RowStatistics(metric, signature, _class_counts(predictions, labels), _macro_f1_of_counts)


def bootstrap_interval(rows: RowStatistics, *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The 95 % percentile bootstrap interval of a score: the rows are drawn anew, with replacement,
    `resamples` times (Koehn 2004, "Statistical significance tests for machine translation evaluation")."""
    scores = [rows.score(sums) for sums in _resampled(rows.values, resamples, seed)]
    return Interval(*_percentiles(scores))


def paired_difference(
    first: RowStatistics, second: RowStatistics, *, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """By how much `first` scores higher than `second`: each resample draws the same rows of both, so that
    what makes a row hard for either cancels.

    Raises:
        ValueError: the two are not of one metric on as many rows.
    """
    if (first.metric, len(first.values)) != (second.metric, len(second.values)):
        raise ValueError(
            f"{first.metric} on {len(first.values)} rows cannot be compared with "
            f"{second.metric} on {len(second.values)}"
        )
    width = first.values.shape[1]
    both = np.concatenate([first.values, second.values], axis=1)
    differences = [
        first.score(sums[:width]) - second.score(sums[width:]) for sums in _resampled(both, resamples, seed)
    ]
    return Difference(first.total() - second.total(), *_percentiles(differences))


def _resampled(values: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """(resamples, statistics): the sums over `rows` rows drawn with replacement."""
    generator = np.random.default_rng(seed)
    rows = len(values)
    sums = np.empty((resamples, values.shape[1]))
    for number in range(resamples):
        # How often each row was drawn, times the rows: their sum, without copying any.
        sums[number] = np.bincount(generator.integers(0, rows, rows), minlength=rows) @ values
    return sums


def _percentiles(scores: Sequence[float]) -> tuple[float, float]:
    tail = 100 * (1 - COVERAGE) / 2
    low, high = np.percentile(scores, [tail, 100 - tail])
    return float(low), float(high)


def _bleu_metric() -> SacrebleuMetric:
    from sacrebleu.metrics.bleu import BLEU

    # force: no warning about texts that end in " ."; the score is the same.
    return BLEU(force=True)


def _chrf_metric() -> SacrebleuMetric:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def _sacrebleu(
    metric: SacrebleuMetric, predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> Score:
    _check_rows(predictions, references)
    value = metric.corpus_score(list(predictions), _streams(references)).score
    return Score(float(value), str(metric.get_signature()))


def _sacrebleu_statistics(
    name: Metric, metric: SacrebleuMetric, predictions: Sequence[str], references: Sequence[Sequence[str]]
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


def _hits_and_ones(hits: Sequence[bool]) -> NDArray[np.float64]:
    return np.stack([np.array(hits, dtype=np.float64), np.ones(len(hits))], axis=1)


def _ratio(sums: NDArray[np.float64]) -> float:
    return float(sums[0] / sums[1])


def _class_counts(predictions: Sequence[str], labels: Sequence[str]) -> NDArray[np.float64]:
    """(rows, 2 · classes): right (1 in the row's class), then predicted + present (1 or 2 for a class)."""
    classes = {name: index for index, name in enumerate(sorted({*predictions, *labels}))}
    predicted = np.array([classes[name] for name in predictions])
    present = np.array([classes[name] for name in labels])
    rows = np.arange(len(labels))
    right, seen = np.zeros((2, len(labels), len(classes)))
    right[rows, present] = predicted == present
    seen[rows, predicted] += 1
    seen[rows, present] += 1
    return np.concatenate([right, seen], axis=1)


def _macro_f1_of_counts(sums: NDArray[np.float64]) -> float:
    """Mean over classes of 2·right / (predicted + present); a class that is in neither has no F1."""
    right, seen = np.split(sums, 2)
    found = seen > 0
    return float(np.mean(2 * right[found] / seen[found]))


def _score(metric: Metric, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    rows = row_statistics(metric, predictions, references)
    return Score(rows.total(), rows.signature)


def _sklearn_signature(*parts: str) -> str:
    import sklearn

    return "|".join((*parts, f"scikit-learn:{sklearn.__version__}"))


def _check_rows(predictions: Sequence[str], references: Sequence[Any]) -> None:
    if not len(references):
        raise ValueError("there are no rows to score")
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} rows")
