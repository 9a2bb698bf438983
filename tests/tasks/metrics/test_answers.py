"""SQuAD's scores."""

from __future__ import annotations

import collections
import re
import string
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.tasks.metrics import row_statistics

TEXTS = st.lists(
    st.sampled_from(
        ["a", "The", "cat", "cat,", "an", "anthem", "U.S.", "Don't", "—", "-", "42", "the-cat", "猫"]
    ),
    max_size=6,
).map(" ".join)
PAIRS = st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1, max_size=6)


def published(text: str) -> str:
    """The steps of the published script in its order: lower, punctuation, articles, white space."""
    text = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def published_f1(prediction: str, reference: str) -> float:
    return shared_words(published(prediction), published(reference))


def shared_words(prediction: str, reference: str) -> float:
    one, other = prediction.split(), reference.split()
    same = sum((collections.Counter(one) & collections.Counter(other)).values())
    if not one or not other:
        return float(one == other)
    if not same:
        return 0.0
    precision, recall = same / len(one), same / len(other)
    return 2 * precision * recall / (precision + recall)


@settings(max_examples=150, deadline=None)
@given(PAIRS)
def test_scores_are_the_published_scripts(pairs: list[tuple[str, list[str]]]) -> None:
    predictions, references = [p for p, _ in pairs], [r for _, r in pairs]
    exact = [max(published(p) == published(one) for one in row) for p, row in pairs]
    overlap = [max(published_f1(p, one) for one in row) for p, row in pairs]
    found = row_statistics("squad_exact_match", predictions, references).total()
    assert found == pytest.approx(100 * sum(exact) / len(pairs))
    assert row_statistics("squad_f1", predictions, references).total() == pytest.approx(
        100 * sum(overlap) / len(pairs)
    )


@pytest.mark.parametrize(
    ("prediction", "references", "exact", "f1"),
    [
        ("The Cat.", ["cat"], 100, 100),
        ("a black cat", ["the cat", "dog"], 0, 200 / 3),
        ("", [""], 100, 100),
        ("", ["cat"], 0, 0),
        ("cat", [""], 0, 0),
        # Only articles: nothing is left of either.
        ("the", ["a"], 100, 100),
        ("dog", ["cat", "dog", ""], 100, 100),
    ],
)
def test_known_values(prediction: str, references: list[str], exact: float, f1: float) -> None:
    assert row_statistics("squad_exact_match", [prediction], [references]).total() == exact
    assert row_statistics("squad_f1", [prediction], [references]).total() == pytest.approx(f1)


def published_chinese(text: str) -> str:
    """The steps of MLQA's script for zh: lower, any punctuation, a split at each Chinese character, white space."""
    marks = {chr(i) for i in range(sys.maxunicode) if unicodedata.category(chr(i)).startswith("P")}
    words, begun = list[str](), ""
    for letter in "".join(letter for letter in text.lower() if letter not in marks | set(string.punctuation)):
        if re.search(r"[\u4e00-\u9fa5]", letter):
            words += [*begun.split(), letter]
            begun = ""
        else:
            begun += letter
    return " ".join([*words, *begun.split()])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.text("猫和狗。《》，the A2$", max_size=10)] * 2), min_size=1, max_size=4))
def test_chinese_scores_are_the_published_scripts(pairs: list[tuple[str, str]]) -> None:
    predictions, references = [p for p, _ in pairs], [[r] for _, r in pairs]
    for metric, score in (
        ("mlqa_zh_exact_match", lambda one, other: float(one == other)),
        ("mlqa_zh_f1", shared_words),
    ):
        wanted = [score(published_chinese(p), published_chinese(r)) for p, r in pairs]
        found = row_statistics(metric, predictions, references).total()  # type: ignore[arg-type]
        assert found == pytest.approx(100 * sum(wanted) / len(pairs))


def test_a_chinese_answer_may_be_right_in_part() -> None:
    assert row_statistics("squad_f1", ["战国无双"], [["战国无双3"]]).total() == 0
    assert row_statistics("mlqa_zh_f1", ["《战国无双》"], [["战国无双3"]]).total() == pytest.approx(
        100 * 8 / 9
    )
