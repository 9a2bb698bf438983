"""Correlations are scipy's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from unmask.tasks.metrics import bootstrap_interval, row_statistics

NUMBERS = st.floats(-50, 50).map(lambda value: round(value, 1))
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=20)


@settings(max_examples=150, deadline=None)
@given(PAIRS)
def test_correlations_are_scipys(pairs: list[tuple[float, float]]) -> None:
    predictions, numbers = [p for p, _ in pairs], [n for _, n in pairs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about constant sides, of which it has no number
        wanted = {
            "pearson": pearsonr(predictions, numbers).statistic,
            "spearman": spearmanr(predictions, numbers).statistic,
        }
    for metric, value in wanted.items():
        found = row_statistics(metric, list(map(str, predictions)), [[str(n)] for n in numbers])  # type: ignore[arg-type]
        assert found.total() == pytest.approx(0.0 if np.isnan(value) else value, abs=1e-9), metric


def test_what_cannot_be_correlated_is_zero() -> None:
    for predictions in (["1", "1", "1"], ["", "", ""], ["nan", "inf", "x"]):
        for metric in ("pearson", "spearman"):
            found = row_statistics(metric, predictions, [["1"], ["2"], ["3"]])  # type: ignore[arg-type]
            assert found.total() == 0 and bootstrap_interval(found).high == 0
    assert row_statistics("pearson", ["0.1"], [["0.1"]]).total() == 0


def test_one_prediction_that_is_no_number_counts_as_zero() -> None:
    found = row_statistics("pearson", ["1", "?", "3"], [["1"], ["2"], ["3"]])
    assert found.total() == pytest.approx(pearsonr([1, 0, 3], [1, 2, 3]).statistic)
