"""Pairs and labelled texts."""

from __future__ import annotations

import numpy as np
import pytest

from unmask.data.finetuning import Labelled, Pairs
from unmask.data.stream import EvaluationBatches, TrainingBatches
from unmask.errors import UserError


def test_pairs() -> None:
    pairs = Pairs([[5, 6, 1], [7, 1], [8, 1]], [[9, 1], [10, 11, 1], [1]])
    batches = EvaluationBatches(pairs, batch_size=2, seed=0)
    assert len(batches) == 2
    first = {name: values.tolist() for name, values in batches[0].items()}
    assert first == {
        "inputs": [5, 6, 1, 7, 1],
        "input_lengths": [3, 2],
        "targets": [9, 1, 10, 11, 1],
        "target_lengths": [2, 3],
    }
    assert batches[1]["targets"].tolist() == [1]
    assert {values.dtype for values in batches[0].values()} == {np.dtype(np.int32)}


def test_labelled() -> None:
    texts = Labelled([[2, 5, 3], [2, 6, 3, 7, 3]], [1, 0], token_types=[[0, 0, 0], [0, 0, 0, 1, 1]])
    batch = EvaluationBatches(texts, batch_size=8, seed=0)[0]
    assert {name: values.tolist() for name, values in batch.items()} == {
        "inputs": [2, 5, 3, 2, 6, 3, 7, 3],
        "lengths": [3, 5],
        "token_types": [0, 0, 0, 0, 0, 0, 1, 1],
        "labels": [1, 0],
    }
    assert batch["labels"].dtype == np.int64


def test_labels_may_be_scores_and_segments_may_be_left_out() -> None:
    batch = EvaluationBatches(Labelled([[2, 5], [3]], [0.5, 4.0]), batch_size=2, seed=0)[0]
    assert batch["labels"].dtype == np.float32
    assert batch["labels"].tolist() == [0.5, 4.0]
    assert batch["token_types"].tolist() == [0, 0, 0]


def test_columns_stay_together_in_training() -> None:
    texts = Labelled([[i] * (1 + i % 3) for i in range(50)], list(range(50)))
    for k in range(20):
        batch = TrainingBatches(texts, batch_size=7, seed=3)[k]
        assert np.repeat(batch["labels"], batch["lengths"]).tolist() == batch["inputs"].tolist()


def test_columns_that_do_not_fit() -> None:
    for make, message in [
        (lambda: Pairs([], []), "there are no examples"),
        (lambda: Pairs([[1]], []), "1 inputs and 0 targets"),
        (lambda: Pairs([[1], []], [[1], [1]]), "example 1 has no tokens in its inputs"),
        (lambda: Pairs([[1], [1]], [[], [1]]), "example 0 has no tokens in its targets"),
        (lambda: Labelled([[1]], [0, 1]), "1 inputs and 2 labels"),
        (lambda: Labelled([[1], [1]], [0, 1], token_types=[[0], [0, 0]]), "example 1 has a different number"),
    ]:
        with pytest.raises(UserError, match=message):
            make()
