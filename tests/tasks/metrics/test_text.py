"""Scores of written texts are the reference packages'."""

from __future__ import annotations

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.tasks.metrics import Metric, bootstrap_interval, row_statistics

TEXTS = st.lists(
    st.sampled_from(["a", "the", "cat", "cats", "sat", "on", "mat", ".", ",", "dog"]), max_size=9
).map(" ".join)
PAIRS = st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=4)), min_size=1, max_size=8)


def padded(references: list[list[str]]) -> list[list[str | None]]:
    """Written out again, in the way of sacrebleu's README: None where a row has fewer references."""
    return [[r[i] if i < len(r) else None for r in references] for i in range(max(map(len, references)))]


@settings(max_examples=150, deadline=None)
@given(PAIRS)
def test_bleu_and_chrf_are_sacrebleus(pairs: list[tuple[str, list[str]]]) -> None:
    predictions, references = [p for p, _ in pairs], [r for _, r in pairs]
    wanted_bleu = sacrebleu.corpus_bleu(predictions, padded(references)).score
    wanted_chrf = sacrebleu.corpus_chrf(predictions, padded(references)).score
    assert row_statistics("bleu", predictions, references).total() == pytest.approx(wanted_bleu, abs=1e-9)
    assert row_statistics("chrf", predictions, references).total() == pytest.approx(wanted_chrf, abs=1e-9)


@pytest.mark.parametrize(("name", "tokenize"), [("bleu_zh", "zh"), ("bleu_char", "char")])
@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.text("猫坐在垫子上。，a b", max_size=12)] * 2), min_size=1, max_size=6))
def test_bleu_without_spaces_is_sacrebleus(name: Metric, tokenize: str, pairs: list[tuple[str, str]]) -> None:
    predictions, references = [p for p, _ in pairs], [[r] for _, r in pairs]
    wanted = sacrebleu.corpus_bleu(predictions, padded(references), tokenize=tokenize).score
    found = row_statistics(name, predictions, references)
    assert found.total() == pytest.approx(wanted, abs=1e-9)
    assert f"|tok:{tokenize}" in found.signature


@settings(max_examples=50, deadline=None)
@given(PAIRS)
def test_rouge_is_rouge_scores(pairs: list[tuple[str, list[str]]]) -> None:
    scorer_of = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer
    scorer = scorer_of(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    predictions, references = [p for p, _ in pairs], [r for _, r in pairs]
    for metric, kind in (("rouge1", "rouge1"), ("rouge2", "rouge2"), ("rouge_l", "rougeL")):
        # Its own choice among several references, and its mean over rows.
        best = [scorer.score_multi(row, text)[kind].fmeasure for text, row in pairs]
        found = row_statistics(metric, predictions, references).total()  # type: ignore[arg-type]
        assert found == pytest.approx(sum(best) / len(best), abs=1e-12)


def test_references_beyond_the_first_count() -> None:
    predictions = ["the cat sat on the mat", "a dog barked at me today"]
    references = [["a dog sat", "the cat sat on the mat"], ["a dog barked at me today"]]
    assert row_statistics("bleu", predictions, references).total() == pytest.approx(100)
    assert row_statistics("chrf", predictions, references).total() == pytest.approx(100)
    assert row_statistics("exact_match", predictions, references).total() == 1
    assert row_statistics("bleu", predictions, [row[:1] for row in references]).total() < 60


def test_signatures_say_how_it_was_computed() -> None:
    signature = row_statistics("bleu", ["a", "b"], [["a"], ["b", "c"]]).signature
    assert signature.startswith("nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert row_statistics("bleu", ["a"], [["a"]]).signature.startswith("nrefs:1|")
    signature = row_statistics("chrf", ["a"], [["a"]]).signature
    assert signature.startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")


def test_empty_predictions_score_zero() -> None:
    for metric in ("bleu", "chrf", "exact_match", "rouge1", "rouge_l"):
        statistics = row_statistics(metric, ["", ""], [["the cat"], ["a dog"]])  # type: ignore[arg-type]
        assert statistics.total() == 0 and bootstrap_interval(statistics).high == 0


def test_exact_match_forgives_white_space_around_a_text_alone() -> None:
    found = row_statistics("exact_match", [" a b\n", "a  b", "A b"], [["a b"], ["a b"], ["a b"]])
    assert found.total() == pytest.approx(1 / 3)
