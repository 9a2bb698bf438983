from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from unmask.errors import UserError
from unmask.tasks import baselines
from unmask.tasks.baselines import majority_class, nearest_neighbour
from unmask.tasks.metrics import row_statistics


def test_majority_is_the_most_frequent_and_of_equals_the_first_in_sorted_order() -> None:
    assert majority_class(["b", "a", "b"], 2) == ["b", "b"]
    assert majority_class(["c", "b", "b", "c", "a"], 1) == ["b"]
    with pytest.raises(ValueError, match="no training labels"):
        majority_class([], 3)


def test_the_nearest_row_answers() -> None:
    sources = ["the cat sat", "a dog barked loudly", "I like it"]
    assert nearest_neighbour(sources, ["cat", "dog", "me"], ["the dog barked", "the Cat", "I"]) == [
        "dog",
        "cat",
        "me",
    ]


def test_word_order_counts_through_pairs() -> None:
    assert nearest_neighbour(["dog bites man", "man bites dog"], ["first", "second"], ["man bites"]) == [
        "second"
    ]


def test_of_rows_that_are_equally_near_the_first_answers() -> None:
    sources = ["x y", "the cat", "the cat", "cat the"]
    assert nearest_neighbour(sources, list("abcd"), ["the cat", "cat"]) == ["b", "b"]
    # Nothing in common with any row: all are equally far.
    assert nearest_neighbour(sources, list("abcd"), ["zebra", ""]) == ["a", "a"]


def test_rows_that_tie_on_paper_tie_whatever_the_order_of_the_sums() -> None:
    # The third and the last row are alike but for the letters; unrounded, the last is nearer by one ulp.
    sources = ["c e", "h g h c h", "e c g", "ff bb", "cc aa cc ff cc", "bb ff aa"]
    assert nearest_neighbour(sources, list("123456"), ["e c zz bb ff"]) == ["3"]


WORDS = st.lists(st.sampled_from(["red", "green", "blue", "cat", "dog"]), min_size=1, max_size=6).map(
    " ".join
)


@settings(max_examples=50, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=12), st.lists(WORDS, max_size=12))
def test_batches_give_what_one_dense_product_gives(training: list[str], sources: list[str]) -> None:
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\b\w+\b").fit(training)
    wanted = []
    for source in sources:
        likeness = (vectorizer.transform([source]) @ vectorizer.transform(training).T).toarray()[0]
        wanted.append(str(int(np.round(likeness, 9).argmax())))
    targets = [str(number) for number in range(len(training))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "_BATCH", 5)
        assert nearest_neighbour(training, targets, sources) == wanted


def test_training_rows_that_cannot_answer_are_refused() -> None:
    with pytest.raises(ValueError, match="1 training sources for 2 targets"):
        nearest_neighbour(["a"], ["a", "b"], ["a"])
    with pytest.raises(ValueError, match="0 training sources"):
        nearest_neighbour([], [], ["a"])
    with pytest.raises(UserError, match="none of the 2 training sources holds a word"):
        nearest_neighbour(["!", "…"], ["a", "b"], ["a"])


def test_on_question_types_it_is_far_above_the_majority(shared_data: Path) -> None:
    def read(name: str) -> list[dict[str, str]]:
        with gzip.open(shared_data / "tasks" / "trec" / name, "rt", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    training, test = read("train.csv.gz"), read("test.csv.gz")
    labels = [row["label"] for row in test]
    near = nearest_neighbour(
        [r["text"] for r in training], [r["label"] for r in training], [r["text"] for r in test]
    )
    most = majority_class([row["label"] for row in training], len(test))
    assert (
        row_statistics("accuracy", near, [[label] for label in labels]).total()
        > 0.6
        > 0.3
        > row_statistics("accuracy", most, [[label] for label in labels]).total()
    )
