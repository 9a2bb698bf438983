"""Intervals and differences by drawing rows anew."""

from __future__ import annotations

import time

import numpy as np
import pytest

from unmask.tasks.metrics import (
    METRICS,
    Judged,
    Metric,
    bootstrap_interval,
    paired_difference,
    row_statistics,
    score_predictions,
)


def random_rows(rows: int, seed: int, right: float = 0.6) -> tuple[list[str], list[list[str]]]:
    generator = np.random.default_rng(seed)
    words = ["a", "the", "cat", "sat", "on", "mat", "dog", "ran", "to", "b"]
    references = [[" ".join(generator.choice(words, generator.integers(3, 12)))] for _ in range(rows)]
    predictions = [
        " ".join(word if generator.random() < right else "x" for word in row[0].split()) for row in references
    ]
    return predictions, references


def rows_for(metric: Metric, rows: int, seed: int) -> tuple[list[str], Judged]:
    """Predictions that are often right, in the form that a metric takes."""
    predictions, references = random_rows(rows, seed, right=0.9)
    if metric in ("pearson", "spearman"):
        generator = np.random.default_rng(seed)
        numbers = generator.integers(0, 6, rows)
        guesses = numbers + generator.integers(-1, 2, rows)
        return [str(guess) for guess in guesses], Judged([[str(number)] for number in numbers])
    if metric.startswith(("entity", "tag")):
        tags = {"a": "B-X", "the": "I-X", "cat": "B-Y", "x": "B-Y"}
        predictions = [" ".join(tags.get(word, "O") for word in text.split()) for text in predictions]
        return predictions, Judged(
            [[" ".join(tags.get(word, "O") for word in row[0].split())] for row in references]
        )
    if metric in ("accuracy", "macro_f1", "f1", "matthews", "group_f1", "group_exact_match"):
        labels = [[row[0][:1]] for row in references]
        return [text[:1] for text in predictions], Judged(labels, "t", [str(row) for row in range(rows)])
    # What was to be corrected, where a metric asks, is the prediction's own words in part.
    sources = [row[0].replace("cat", "dog").replace("the", "") for row in references]
    return predictions, Judged(references, sources=sources)


@pytest.mark.parametrize("metric", METRICS)
def test_counting_rows_equals_scoring_the_drawn_rows(metric: Metric) -> None:
    predictions, judged = rows_for(metric, 30, seed=1)
    statistics = row_statistics(metric, predictions, judged)
    generator = np.random.default_rng(3)
    scores = []
    for _ in range(40):
        drawn = generator.integers(0, 30, 30)
        again = Judged(
            [judged.references[row] for row in drawn],
            judged.positive,
            [str(n) for n in range(30)],
            [judged.sources[row] for row in drawn] if judged.sources else (),
        )
        scores.append(row_statistics(metric, [predictions[row] for row in drawn], again).total())
    interval = bootstrap_interval(statistics, resamples=40, seed=3)
    assert [interval.low, interval.high] == pytest.approx(
        np.percentile(scores, [2.5, 97.5]).tolist(), abs=1e-9
    )
    assert interval.low < interval.high


def test_groups_are_drawn_whole() -> None:
    # Two questions, of two answers each: one question is right.
    judged = Judged([["1"], ["0"], ["1"], ["0"]], "1", ["q1", "q1", "q2", "q2"])
    statistics = row_statistics("group_exact_match", ["1", "0", "1", "1"], judged)
    assert statistics.total() == 0.5 and len(statistics.values) == 2
    assert row_statistics("group_f1", ["1", "0", "1", "1"], judged).total() == pytest.approx(0.8)
    assert len(row_statistics("group_f1", ["1", "0", "1", "1"], judged).values) == 2


def test_the_interval_of_a_share_is_the_binomials() -> None:
    generator = np.random.default_rng(0)
    labels = ["a"] * 2000
    predictions = ["a" if right else "b" for right in generator.random(2000) < 0.8]
    statistics = row_statistics("accuracy", predictions, [[label] for label in labels])
    interval = bootstrap_interval(statistics, resamples=4000)
    share = statistics.total()
    half = 1.96 * np.sqrt(share * (1 - share) / 2000)
    assert interval.low == pytest.approx(share - half, abs=0.002)
    assert interval.high == pytest.approx(share + half, abs=0.002)


def test_the_same_seed_gives_the_same_interval_and_another_does_not() -> None:
    statistics = row_statistics("bleu", *random_rows(50, seed=0))
    assert bootstrap_interval(statistics, seed=1) == bootstrap_interval(statistics, seed=1)
    assert bootstrap_interval(statistics, seed=1) != bootstrap_interval(statistics, seed=2)


def test_a_thousand_resamples_of_bleu_take_less_than_a_second() -> None:
    statistics = row_statistics("bleu", *random_rows(2000, seed=0))
    start = time.perf_counter()
    bootstrap_interval(statistics, resamples=1000)
    assert time.perf_counter() - start < 1


def test_a_system_does_not_differ_from_itself() -> None:
    statistics = row_statistics("bleu", *random_rows(50, seed=0))
    difference = paired_difference(statistics, statistics)
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)


def test_a_difference_that_rows_share_is_seen_where_the_intervals_overlap() -> None:
    # Half of the rows are hopeless for both systems; the first is right where the second is, and a bit more.
    labels = [["a"]] * 400
    second = ["a"] * 180 + ["b"] * 220
    first = ["a"] * 192 + ["b"] * 208
    one, two = (row_statistics("accuracy", system, labels) for system in (first, second))
    assert bootstrap_interval(one).low < bootstrap_interval(two).high
    difference = paired_difference(one, two)
    assert difference.value == pytest.approx(0.03)
    assert 0.01 < difference.low < 0.03 < difference.high < 0.05
    back = paired_difference(two, one)
    assert (back.low, back.high) == pytest.approx((-difference.high, -difference.low))


def test_what_cannot_be_compared_or_scored_is_refused() -> None:
    one = row_statistics("accuracy", ["a"], [["a"]])
    with pytest.raises(ValueError, match="accuracy on 1 rows cannot be compared with accuracy on 2"):
        paired_difference(one, row_statistics("accuracy", ["a", "b"], [["a"], ["b"]]))
    with pytest.raises(ValueError, match="cannot be compared with exact_match"):
        paired_difference(one, row_statistics("exact_match", ["a"], [["a"]]))
    with pytest.raises(ValueError, match="no rows"):
        row_statistics("bleu", [], [])
    with pytest.raises(ValueError, match="1 predictions for 2 rows"):
        row_statistics("bleu", ["a"], [["a"], ["b"]])
    with pytest.raises(ValueError, match="row 2 has no reference"):
        row_statistics("bleu", ["a", "b"], [["a"], []])
    with pytest.raises(ValueError, match="accuracy takes one label a row"):
        row_statistics("accuracy", ["a"], [["a", "b"]])
    with pytest.raises(ValueError, match="there are no rows"):
        row_statistics("group_f1", ["a"], [["a"]])


def test_an_evaluation_holds_everything_about_a_system() -> None:
    predictions, references = random_rows(20, seed=0)
    evaluation = score_predictions(("bleu", "chrf"), predictions, references)
    assert evaluation.scores["bleu"] == row_statistics("bleu", predictions, references).total()
    assert (
        list(evaluation.scores)
        == list(evaluation.intervals)
        == list(evaluation.signatures)
        == ["bleu", "chrf"]
    )
    for metric, score in evaluation.scores.items():
        assert evaluation.intervals[metric].low <= score <= evaluation.intervals[metric].high
    assert evaluation.rows == 20 and evaluation.predictions == tuple(predictions)
