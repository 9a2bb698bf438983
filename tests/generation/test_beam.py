"""Beam search: Transformers' results, whatever else is in the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference import END, alone, padded_batch, trimmed

OPTIONS: list[dict[str, Any]] = [
    {},
    {"length_penalty": 2.0},
    {"length_penalty": 0.0},
    {"length_penalty": -1.5},
    {"early_stopping": True},
    {"early_stopping": True, "length_penalty": 0.3},
    {"early_stopping": "never"},
    {"early_stopping": "never", "length_penalty": 1.7},
    {"early_stopping": "never", "length_penalty": -0.5},
    {"min_new_tokens": 6},
    {"repetition_penalty": 1.7},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 1, "repetition_penalty": 0.6},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("results", [1, 4])
def test_ids_and_scores_are_those_of_transformers(pair: Any, options: dict[str, Any], results: int) -> None:
    ended = 0
    for seed in range(4):
        ours, theirs = pair(seed)
        ids, mask = padded_batch(seed)
        common = {"max_new_tokens": 14, "num_beams": 4, "num_return_sequences": results} | options
        expected = theirs.generate(
            ids, attention_mask=mask, return_dict_in_generate=True, output_scores=True, **common
        )
        output = ours.generate(ids, mask, return_scores=True, **common)
        assert trimmed(output.sequences) == trimmed(expected.sequences)
        torch.testing.assert_close(output.sequence_scores, expected.sequences_scores, atol=1e-3, rtol=5e-4)
        ended += sum(END in row for row in trimmed(output.sequences))
    assert ended, "no hypothesis ever ended: the test would not see how they are ranked"


def test_scores_of_well_conditioned_models_are_transformers_to_1e4(pair: Any) -> None:
    """Attention that is not scaled makes the other tests' models, with weights twice as large, less exact."""
    for seed in range(4):
        ours, theirs = pair(seed, spread=1.0)
        ids, mask = padded_batch(seed)
        common = {"max_new_tokens": 14, "num_beams": 4, "num_return_sequences": 4}
        expected = theirs.generate(
            ids, attention_mask=mask, return_dict_in_generate=True, output_scores=True, **common
        )
        output = ours.generate(ids, mask, return_scores=True, **common)
        assert trimmed(output.sequences) == trimmed(expected.sequences)
        torch.testing.assert_close(output.sequence_scores, expected.sequences_scores, atol=1e-4, rtol=0)


@pytest.mark.parametrize("beams", [2, 7])
def test_other_widths_agree_with_transformers(pair: Any, beams: int) -> None:
    ours, theirs = pair(5)
    ids, mask = padded_batch(9)
    expected = theirs.generate(ids, attention_mask=mask, num_beams=beams, max_new_tokens=9)
    assert trimmed(ours.generate(ids, mask, num_beams=beams, max_new_tokens=9)) == trimmed(expected)


def test_prefix_agrees_with_transformers(pair: Any) -> None:
    ours, theirs = pair(1)
    ids, mask = padded_batch(3)
    prefix = torch.randint(3, 60, (ids.shape[0], 3), generator=torch.Generator().manual_seed(0))
    start = torch.zeros(ids.shape[0], 1, dtype=torch.int64)
    expected = theirs.generate(
        ids,
        attention_mask=mask,
        decoder_input_ids=torch.cat((start, prefix), 1),
        num_beams=4,
        max_new_tokens=8,
        output_scores=True,
        return_dict_in_generate=True,
    )
    output = ours.generate(
        ids, mask, decoder_prefix_ids=prefix, num_beams=4, max_new_tokens=8, return_scores=True
    )
    assert trimmed(output.sequences, 4) == trimmed(expected.sequences, 4)
    torch.testing.assert_close(output.sequence_scores, expected.sequences_scores, atol=1e-3, rtol=5e-4)


def test_token_scores_are_those_of_score_and_make_the_sequence_score(pair: Any) -> None:
    ours, _ = pair(2)
    ids, mask = padded_batch(4)
    output = ours.generate(
        ids,
        mask,
        num_beams=4,
        num_return_sequences=3,
        max_new_tokens=10,
        length_penalty=0.7,
        return_scores=True,
    )
    targets = [row[1:] for row in trimmed(output.sequences)]
    scored = ours.score(ids, targets, mask)
    torch.testing.assert_close(output.token_scores.sum(1), scored, atol=1e-4, rtol=1e-4)
    lengths = torch.tensor([len(row) for row in targets])
    torch.testing.assert_close(output.sequence_scores, scored / lengths**0.7, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
def test_a_result_does_not_depend_on_the_batch(pair: Any, early_stopping: Any) -> None:
    """Hundreds of random batches: company, order, padding on either side, and being alone."""
    options = {"num_beams": 4, "max_new_tokens": 6, "num_return_sequences": 2, "return_scores": True}
    options["early_stopping"] = early_stopping
    for seed in range(70):
        ours, _ = pair(seed % 4)
        ids, mask = padded_batch(1000 + seed, rows=4)
        together = ours.generate(ids, mask, **options)
        rows = trimmed(together.sequences)
        order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
        wider = torch.nn.functional.pad(ids[order], (3, 2)), torch.nn.functional.pad(mask[order], (3, 2))
        shuffled = trimmed(ours.generate(*wider, **options).sequences)
        places = (order[:, None] * 2 + torch.arange(2)).flatten().tolist()
        assert shuffled == [rows[place] for place in places]
        row = seed % 4
        single = ours.generate(*alone(ids, mask, row), **options)
        assert trimmed(single.sequences) == rows[2 * row : 2 * row + 2]
        expected = together.sequence_scores[2 * row : 2 * row + 2]
        torch.testing.assert_close(single.sequence_scores, expected, atol=5e-4, rtol=5e-4)


def test_fewer_sequences_than_beams_leave_empty_places(pair: Any) -> None:
    from unmask.generation.constraints import Choices

    ours, _ = pair(0)
    ids, mask = padded_batch(0)
    output = ours.generate(
        ids,
        mask,
        num_beams=4,
        num_return_sequences=4,
        constraint=Choices([[5, 6], [7]]),
        return_scores=True,
    )
    scores = output.sequence_scores.view(-1, 4)
    assert torch.isfinite(scores[:, :2]).all() and torch.isinf(scores[:, 2:]).all()
    assert (output.sequences.view(ids.shape[0], 4, -1)[:, 2:] == 0).all()
