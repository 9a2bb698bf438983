"""What answers a set of `benchmarks/finetune.py` without a neural network."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from unmask.tasks.baselines import logistic_regression
from unmask.tasks.evaluation import HeldOut

#: Rounds of the word table's estimation.
ROUNDS = 8
#: For each word, translations that are kept.
KEPT = 50


def baselines(held_out: HeldOut) -> dict[str, float]:
    """Name → score in the task's first metric: unmask's own baselines, and a better one for each kind."""
    task, metric = held_out.task, held_out.task.metrics[0]
    scores = {name: float(one.scores[metric]) for name, one in held_out.baselines().items()}
    sources = [[" ".join(row.sources) for row in rows] for rows in (held_out.training, held_out.rows)]
    more: dict[str, Sequence[str]] = {}
    if task.kind in ("classification", "pair-classification"):
        labels = [row.target for row in held_out.training]
        more["TF-IDF and logistic regression"] = logistic_regression(sources[0], labels, sources[1])
    elif task.kind == "regression" and len(task.source) == 2:
        more["cosine of the two texts' TF-IDF vectors"] = cosines(held_out)
    elif task.kind == "text-to-text":
        targets = [row.target for row in held_out.training]
        more["word table (IBM model 1)"] = by_words(sources[0], targets, sources[1])
    return scores | {name: float(held_out.statistics(answers).total()) for name, answers in more.items()}


def cosines(held_out: HeldOut) -> list[str]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    known = [text for row in held_out.training for text in row.sources]
    vectorizer = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b").fit(known)
    first, second = (vectorizer.transform([row.sources[side] for row in held_out.rows]) for side in (0, 1))
    return [str(value) for value in np.asarray(first.multiply(second).sum(axis=1)).ravel()]


def by_words(sources: Sequence[str], targets: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Each word replaced by its likeliest translation, in its place: IBM's model 1 (Brown et al. 1993, section 4.1)
    with a word that stands for nothing. A word that was never seen stays."""
    pairs = [(["", *source.split()], target.split()) for source, target in zip(sources, targets, strict=True)]
    table: dict[str, dict[str, float]] = defaultdict(dict)
    for source, target in pairs:
        for word in source:
            table[word].update(dict.fromkeys(target, 1.0))
    for _ in range(ROUNDS):
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for source, target in pairs:
            for word in target:
                shares = [table[one].get(word, 0.0) for one in source]
                total = sum(shares)
                for one, share in zip(source, shares, strict=True):
                    if share:
                        counts[one][word] += share / total
        for one, some in counts.items():
            total = sum(some.values())
            table[one] = {word: count / total for word, count in some.most_common(KEPT)}
    best = {one: max(some, key=lambda word: some[word]) for one, some in table.items()}
    return [" ".join(best.get(word, word) for word in text.split()) for text in asked]
