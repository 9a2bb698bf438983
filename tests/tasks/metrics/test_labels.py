"""Scores of labels are scikit-learn's."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from unmask.tasks.metrics import Judged, bootstrap_interval, row_statistics

LABELS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=30)


@settings(max_examples=150, deadline=None)
@given(LABELS)
def test_label_scores_are_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    predictions, labels = [p for p, _ in pairs], [t for _, t in pairs]
    one_each = [[label] for label in labels]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes that are never predicted
        wanted = {
            "accuracy": accuracy_score(labels, predictions),
            "macro_f1": f1_score(labels, predictions, average="macro"),
            "matthews": matthews_corrcoef(labels, predictions),
            "f1": f1_score([label == "b" for label in labels], [label == "b" for label in predictions]),
        }
    for metric, value in wanted.items():
        found = row_statistics(metric, predictions, Judged(one_each, positive="b"))  # type: ignore[arg-type]
        assert found.total() == pytest.approx(value, abs=1e-12), metric


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("01"), st.sampled_from("01"), st.sampled_from("abcd")), min_size=1))
def test_scores_of_groups_are_multircs(rows: list[tuple[str, str, str]]) -> None:
    """Its F1a is of all answers whatever their question, its exact match the share of questions without a mistake."""
    predictions, labels, groups = ([row[place] for row in rows] for place in range(3))
    judged = Judged([[label] for label in labels], "1", groups)
    flat = f1_score(labels, predictions, pos_label="1", zero_division=0)
    assert row_statistics("group_f1", predictions, judged).total() == pytest.approx(flat, abs=1e-12)
    wrong = {group for prediction, label, group in rows if prediction != label}
    exact = 1 - len(wrong) / len(set(groups))
    assert row_statistics("group_exact_match", predictions, judged).total() == pytest.approx(exact, abs=1e-12)


def test_a_class_that_is_never_predicted_counts_zero_and_one_that_is_nowhere_does_not_count() -> None:
    found = row_statistics("macro_f1", ["a", "a", "a"], [["a"], ["a"], ["b"]])
    assert found.total() == pytest.approx((0.8 + 0) / 2)
    assert row_statistics("macro_f1", ["a", "a"], [["a"], ["a"]]).total() == 1
    # Resamples without the only row of b are all right about a.
    interval = bootstrap_interval(found)
    assert interval.low < 0.4 and interval.high == 1


def test_one_class_alone_correlates_with_nothing() -> None:
    for predictions, labels in (("aaa", "aab"), ("abb", "bbb"), ("aaa", "aaa")):
        assert row_statistics("matthews", list(predictions), [[label] for label in labels]).total() == 0
    none = row_statistics("f1", ["a", "a"], Judged([["a"], ["a"]], positive="b"))
    assert none.total() == 0 and bootstrap_interval(none).high == 0


def test_empty_predictions_score_zero() -> None:
    for metric in ("accuracy", "macro_f1", "f1"):
        statistics = row_statistics(metric, ["", ""], [["cat"], ["dog"]])  # type: ignore[arg-type]
        assert statistics.total() == 0 and bootstrap_interval(statistics).high == 0


def test_the_positive_label_is_the_last_where_none_is_named() -> None:
    rows = ["1", "1", "0"], [["1"], ["0"], ["1"]]
    assert (
        row_statistics("f1", *rows).total()
        == row_statistics("f1", rows[0], Judged(rows[1], "1")).total()
        == 0.5
    )
    assert row_statistics("f1", *rows).signature.startswith("pos_label:1|")
