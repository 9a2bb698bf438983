"""What can be had without a model: the line that a model has to cross."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from unmask.errors import UserError

# Queries compared at a time: 64 × 100,000 training rows is about 50 MB of similarities.
_BATCH = 64


def majority_class(labels: Sequence[str], rows: int) -> list[str]:
    """The most frequent training label for each of `rows` rows; of equals, the first in sorted order.

    Raises:
        ValueError: there are no training labels.
    """
    if not labels:
        raise ValueError("there are no training labels")
    # max keeps the first of equals.
    counts = sorted(Counter(labels).items())
    return [max(counts, key=lambda item: item[1])[0]] * rows


def nearest_neighbour(
    training_sources: Sequence[str], training_targets: Sequence[str], sources: Sequence[str]
) -> list[str]:
    """The target, a label or a text, of the training row whose source is most like each source.

    Likeness is the cosine of TF-IDF vectors over words and pairs of words (scikit-learn's weights). Of rows
    that are equally like it the first is taken; a source that shares no word with any row gets the first.

    Raises:
        ValueError: no training rows, or not as many sources as targets.
        UserError: no training source holds a word.
    """
    if not training_sources or len(training_sources) != len(training_targets):
        raise ValueError(f"{len(training_sources)} training sources for {len(training_targets)} targets")
    from sklearn.feature_extraction.text import TfidfVectorizer

    # The default pattern would drop words of one letter.
    vectorizer: Any = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    try:
        training = vectorizer.fit_transform(training_sources).T.tocsr()
    except ValueError:  # scikit-learn's "empty vocabulary"
        raise UserError(
            f"none of the {len(training_sources)} training sources holds a word: is it the right column?"
        ) from None
    nearest: list[str] = []
    for start in range(0, len(sources), _BATCH):
        # Rows have length 1, so products are cosines.
        likeness = vectorizer.transform(sources[start : start + _BATCH]) @ training
        # Sums in another order differ in the last digits: what is equal on paper must tie here.
        likeness.data = np.round(likeness.data, 9)
        # Filled up with zeros: finding the best of a sparse row sorts it first, which takes longer.
        best = likeness.toarray().argmax(axis=1)
        nearest.extend(training_targets[index] for index in best)
    return nearest


def logistic_regression(
    training_sources: Sequence[str], training_labels: Sequence[str], sources: Sequence[str]
) -> list[str]:
    """The label that a logistic regression over TF-IDF vectors of words and pairs of words gives each source
    (scikit-learn's, with its regularisation C at 10: the vectors have length 1).

    Raises:
        ValueError: no training rows, one label only, or not as many sources as labels.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    pipeline: Any = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", sublinear_tf=True),
        LogisticRegression(C=10.0, max_iter=1000),
    )
    pipeline.fit(list(training_sources), list(training_labels))
    return [str(label) for label in pipeline.predict(list(sources))]
