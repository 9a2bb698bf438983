"""Scores of tags are seqeval's."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval import metrics as seqeval

from unmask.tasks.metrics import bootstrap_interval, row_statistics

TAGS = st.sampled_from(["O", "O", "B-X", "I-X", "B-Y", "I-Y", "E-X", "S-Y", "B-a-b", "I-a-b"])
ROWS = st.lists(st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=9), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(ROWS)
def test_entity_scores_are_seqevals(rows: list[list[tuple[str, str]]]) -> None:
    predictions = [[predicted for predicted, _ in row] for row in rows]
    wanted = [[tag for _, tag in row] for row in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about rows without any entity
        values = {
            "entity_f1": seqeval.f1_score(wanted, predictions, zero_division=0),
            "entity_precision": seqeval.precision_score(wanted, predictions, zero_division=0),
            "entity_recall": seqeval.recall_score(wanted, predictions, zero_division=0),
            "tag_accuracy": seqeval.accuracy_score(wanted, predictions),
        }
    joined = [" ".join(row) for row in predictions], [[" ".join(row)] for row in wanted]
    for metric, value in values.items():
        assert row_statistics(metric, *joined).total() == pytest.approx(value, abs=1e-12), metric  # type: ignore[arg-type]


def test_no_entity_anywhere_scores_zero_and_a_short_prediction_is_wrong_where_it_ends() -> None:
    for metric in ("entity_f1", "entity_precision", "entity_recall"):
        found = row_statistics(metric, ["O O"], [["O O"]])  # type: ignore[arg-type]
        assert found.total() == 0 and bootstrap_interval(found).high == 0
    assert row_statistics("entity_f1", ["O O"], [["B-X O"]]).total() == 0
    assert row_statistics("tag_accuracy", ["B-X"], [["B-X O O"]]).total() == pytest.approx(1 / 3)
    assert row_statistics("tag_accuracy", [""], [["B-X O O"]]).total() == 0
