"""Penalties and bans: Transformers' logits, and its greedy results."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import padded_batch, trimmed
from transformers import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

from unmask.generation.rules import NoRepeatNgram, RepetitionPenalty


@given(length=st.integers(1, 9), size=st.integers(1, 4), seed=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_no_repeat_ngram_bans_what_transformers_bans(length: int, size: int, seed: int) -> None:
    torch.manual_seed(seed)
    written, logits = torch.randint(0, 4, (3, length)), torch.randn(3, 6)
    expected = NoRepeatNGramLogitsProcessor(size)(written, logits)
    assert torch.equal(NoRepeatNgram(size).apply(logits, written), expected)


@given(penalty=st.floats(0.2, 5), seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_repetition_penalty_is_that_of_transformers(penalty: float, seed: int) -> None:
    torch.manual_seed(seed)
    written, logits = torch.randint(0, 6, (3, 5)), torch.randn(3, 6)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(written, logits.clone())
    assert torch.equal(RepetitionPenalty(penalty).apply(logits, written), expected)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repetition_penalty": 1.4},
        {"no_repeat_ngram_size": 2},
        {"no_repeat_ngram_size": 3, "repetition_penalty": 0.8},
        {"min_new_tokens": 5},
        {"min_new_tokens": 12, "no_repeat_ngram_size": 1},
    ],
    ids=str,
)
def test_greedy_with_rules_agrees_with_transformers(pair: Any, options: dict[str, Any]) -> None:
    plain = 0
    for seed in range(4):
        ours, theirs = pair(seed)
        ids, mask = padded_batch(seed)
        expected = theirs.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False, **options)
        found = ours.generate(ids, mask, max_new_tokens=12, **options)
        assert torch.equal(found, expected)
        plain += trimmed(found) == trimmed(ours.generate(ids, mask, max_new_tokens=12))
    assert not options or plain < 4, "the options changed nothing"


def test_prefix_agrees_with_transformers(pair: Any) -> None:
    ours, theirs = pair(3)
    ids, mask = padded_batch(5)
    start = torch.tensor([[0, 9, 20]]).repeat(ids.shape[0], 1)
    expected = theirs.generate(
        ids, attention_mask=mask, decoder_input_ids=start, max_length=11, repetition_penalty=1.3
    )
    found = ours.generate(ids, mask, decoder_prefix_ids=[9, 20], max_length=11, repetition_penalty=1.3)
    assert torch.equal(found, expected)
    again = ours.generate(ids, mask, decoder_prefix_ids=start, max_length=11, repetition_penalty=1.3)
    assert torch.equal(again, expected), "a start token before the prefix makes a difference"


def test_token_scores_are_the_models_own_whatever_the_rules(pair: Any) -> None:
    ours, _ = pair(1)
    ids, mask = padded_batch(6)
    output = ours.generate(
        ids, mask, max_new_tokens=9, no_repeat_ngram_size=1, min_new_tokens=3, return_scores=True
    )
    targets = [row[1:] for row in trimmed(output.sequences)]
    scored = ours.score(ids, targets, mask, per_token=True)
    torch.testing.assert_close(output.token_scores[:, 1:], scored, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(output.sequence_scores, scored.sum(1), atol=1e-3, rtol=1e-3)
