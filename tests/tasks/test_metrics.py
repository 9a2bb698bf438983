from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from unmask.tasks.metrics import (
    METRICS,
    Metric,
    accuracy,
    bleu,
    bootstrap_interval,
    chrf,
    exact_match,
    macro_f1,
    paired_difference,
    row_statistics,
    score_predictions,
)

TEXTS = st.lists(st.sampled_from(["a", "the", "cat", "sat", "on", "mat", ".", ",", "dog"]), max_size=9).map(
    " ".join
)
PAIRS = st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=4)), min_size=1, max_size=8)
LABELS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=30)


def padded(references: list[list[str]]) -> list[list[str | None]]:
    """Written out again, in the way of sacrebleu's README: None where a row has fewer references."""
    return [[r[i] if i < len(r) else None for r in references] for i in range(max(map(len, references)))]


@settings(max_examples=150, deadline=None)
@given(PAIRS)
def test_text_scores_are_sacrebleus(pairs: list[tuple[str, list[str]]]) -> None:
    predictions, references = [p for p, _ in pairs], [r for _, r in pairs]
    wanted_bleu = sacrebleu.corpus_bleu(predictions, padded(references)).score
    wanted_chrf = sacrebleu.corpus_chrf(predictions, padded(references)).score
    assert bleu(predictions, references).value == wanted_bleu
    assert chrf(predictions, references).value == wanted_chrf
    assert row_statistics("bleu", predictions, references).total() == pytest.approx(wanted_bleu, abs=1e-9)
    assert row_statistics("chrf", predictions, references).total() == pytest.approx(wanted_chrf, abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(LABELS)
def test_label_scores_are_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    predictions, labels = [p for p, _ in pairs], [t for _, t in pairs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes that are never predicted
        wanted_f1 = f1_score(labels, predictions, average="macro")
    wanted_accuracy = accuracy_score(labels, predictions)
    assert accuracy(predictions, labels).value == wanted_accuracy
    assert macro_f1(predictions, labels).value == wanted_f1
    one_each = [[label] for label in labels]
    assert row_statistics("accuracy", predictions, one_each).total() == pytest.approx(wanted_accuracy)
    assert row_statistics("macro_f1", predictions, one_each).total() == pytest.approx(wanted_f1)


def test_references_beyond_the_first_count() -> None:
    predictions = ["the cat sat on the mat", "a dog barked at me today"]
    references = [["a dog sat", "the cat sat on the mat"], ["a dog barked at me today"]]
    assert bleu(predictions, references).value == pytest.approx(100)
    assert chrf(predictions, references).value == pytest.approx(100)
    assert exact_match(predictions, references).value == 1
    assert bleu(predictions, [row[:1] for row in references]).value < 60


def test_signatures_say_how_it_was_computed() -> None:
    signature = bleu(["a", "b"], [["a"], ["b", "c"]]).signature
    assert signature.startswith("nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert bleu(["a"], [["a"]]).signature.startswith("nrefs:1|")
    assert chrf(["a"], [["a"]]).signature.startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    assert macro_f1(["a"], ["a"]).signature.startswith("average:macro|zero_division:0|scikit-learn:")
    for metric in METRICS:
        assert row_statistics(metric, ["a"], [["a"]]).signature


def test_empty_predictions_score_zero() -> None:
    assert bleu(["", ""], [["the cat"], ["a dog"]]).value == 0
    assert chrf(["", ""], [["the cat"], ["a dog"]]).value == 0
    assert exact_match(["", ""], [["the cat"], ["a dog"]]).value == 0
    assert accuracy(["", ""], ["cat", "dog"]).value == 0
    assert macro_f1(["", ""], ["cat", "dog"]).value == 0
    for metric in METRICS:
        assert bootstrap_interval(row_statistics(metric, ["", ""], [["the cat"], ["a dog"]])).high == 0


def test_a_class_that_is_never_predicted_counts_zero_and_one_that_is_nowhere_does_not_count() -> None:
    assert macro_f1(["a", "a", "a"], ["a", "a", "b"]).value == pytest.approx((0.8 + 0) / 2)
    assert macro_f1(["a", "a"], ["a", "a"]).value == 1
    # Resamples without the only row of b are all right about a.
    interval = bootstrap_interval(row_statistics("macro_f1", ["a", "a", "a"], [["a"], ["a"], ["b"]]))
    assert interval.low < 0.4 and interval.high == 1


def test_exact_match_forgives_white_space_around_a_text_alone() -> None:
    assert exact_match([" a b\n", "a  b", "A b"], [["a b"], ["a b"], ["a b"]]).value == pytest.approx(1 / 3)


def random_rows(rows: int, seed: int, right: float = 0.6) -> tuple[list[str], list[list[str]]]:
    generator = np.random.default_rng(seed)
    words = ["a", "the", "cat", "sat", "on", "mat", "dog", "ran", "to", "b"]
    references = [[" ".join(generator.choice(words, generator.integers(3, 12)))] for _ in range(rows)]
    predictions = [
        " ".join(word if generator.random() < right else "x" for word in row[0].split()) for row in references
    ]
    return predictions, references


@pytest.mark.parametrize("metric", METRICS)
def test_resampling_sums_equals_scoring_the_resampled_rows(metric: Metric) -> None:
    predictions, references = random_rows(30, seed=1, right=0.9)
    if metric in ("accuracy", "macro_f1"):
        references = [[row[0][:1]] for row in references]
        predictions = [text[:1] for text in predictions]
    statistics = row_statistics(metric, predictions, references)
    functions = {"bleu": bleu, "chrf": chrf, "exact_match": exact_match}
    generator = np.random.default_rng(3)
    scores = []
    for _ in range(40):
        drawn = generator.integers(0, 30, 30)
        rows = [predictions[i] for i in drawn], [references[i] for i in drawn]
        if metric in functions:
            scores.append(functions[metric](*rows).value)
        else:
            labels = [row[0] for row in rows[1]]
            scores.append((accuracy if metric == "accuracy" else macro_f1)(rows[0], labels).value)
    interval = bootstrap_interval(statistics, resamples=40, seed=3)
    assert [interval.low, interval.high] == pytest.approx(
        np.percentile(scores, [2.5, 97.5]).tolist(), abs=1e-9
    )
    assert interval.low < interval.high


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
        bleu([], [])
    with pytest.raises(ValueError, match="1 predictions for 2 rows"):
        row_statistics("bleu", ["a"], [["a"], ["b"]])
    with pytest.raises(ValueError, match="row 2 has no reference"):
        row_statistics("bleu", ["a", "b"], [["a"], []])
    with pytest.raises(ValueError, match="accuracy takes one label a row"):
        row_statistics("accuracy", ["a"], [["a", "b"]])


def test_an_evaluation_holds_everything_about_a_system() -> None:
    predictions, references = random_rows(20, seed=0)
    evaluation = score_predictions(("bleu", "chrf"), predictions, references)
    assert evaluation.scores["bleu"] == pytest.approx(bleu(predictions, references).value)
    assert (
        list(evaluation.scores)
        == list(evaluation.intervals)
        == list(evaluation.signatures)
        == ["bleu", "chrf"]
    )
    for metric, score in evaluation.scores.items():
        assert evaluation.intervals[metric].low <= score <= evaluation.intervals[metric].high
    assert evaluation.rows == 20 and evaluation.predictions == tuple(predictions)
