"""Agreement of decoding with Transformers, for every variant and every option that both have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from unmask import T5ForConditionalGeneration
from unmask.errors import UserError
from unmask.generation.sampling import filter_logits
from unmask.generation.settings import GenerationSettings
from unmask.t5.config import T5Config

Reference = Callable[..., Any]
Pair = tuple[T5ForConditionalGeneration, Any]

#: Variants, and whether the decoder's output is scaled where that is not what the variant says.
FORMS: dict[str, tuple[str, bool | None]] = {
    "v1.0": ("v1.0", None),
    "v1.0, not scaled": ("v1.0", False),
    "v1.1": ("v1.1", None),
    "v1.1, scaled": ("v1.1", True),
    "ByT5": ("ByT5", None),
    "UL2": ("UL2", None),
    "mT5": ("mT5", None),
    "umT5": ("umT5", None),
}
LENGTHS = [9, 3, 14, 1, 6, 11, 2, 8]
NEW_TOKENS = 12


def batch() -> tuple[Tensor, Tensor]:
    """Random ids, padded on the left and on the right, and their mask."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        first = (max(LENGTHS) - length) * (row % 2)
        ids[row, first : first + length] = torch.randint(2, 61, (length,), generator=generator)
        mask[row, first : first + length] = 1
    return ids, mask


IDS, MASK = batch()


@pytest.fixture(params=FORMS, scope="module")
def pair(
    request: pytest.FixtureRequest, reference: Reference, tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    """Ours and theirs, with the same weights."""
    variant, scaled = FORMS[request.param]
    theirs = reference(variant)
    if scaled is not None:
        theirs.config.scale_decoder_outputs = scaled
    directory = tmp_path_factory.mktemp("model")
    theirs.save_pretrained(directory)
    ours = T5ForConditionalGeneration.from_pretrained(directory)
    assert scaled is None or ours.config.scale_decoder_outputs is scaled
    return ours, theirs


def with_an_end(pair: Pair, **options: Any) -> Pair:
    """Random weights hardly ever end: make a token the end that ends some results, about half of them at best."""
    ours, theirs = pair

    def written(end: int) -> Tensor:
        common = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "eos_token_id": end}
        found: Tensor = theirs.generate(IDS, attention_mask=MASK, **common, **options)
        return found

    endless = written(-1 % ours.config.vocab_size)
    rows_with = {token: int((endless == token).any(1).sum()) for token in endless.unique().tolist() if token}
    tokens = sorted(rows_with, key=lambda token: abs(rows_with[token] - endless.shape[0] // 2))
    end = next(token for token in [*tokens, *range(2, 61)] if bool((written(token)[:, 1:] == token).any()))
    theirs.generation_config.eos_token_id = end
    ours.config = replace(ours.config, eos_token_id=end)
    return ours, theirs


def trimmed(sequences: Tensor, end: int) -> list[tuple[int, ...]]:
    """Rows up to their end: behind it Transformers' beams have end tokens, ours padding."""
    rows = [tuple(row[1:]) for row in sequences.tolist()]
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


OPTIONS: list[dict[str, Any]] = [
    {},
    {"repetition_penalty": 1.5},
    {"no_repeat_ngram_size": 2},
    {"min_new_tokens": 5},
    {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "min_new_tokens": 3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_greedy(pair: Pair, options: dict[str, Any]) -> None:
    ours, theirs = with_an_end(pair, **options)
    expected = theirs.generate(
        IDS, attention_mask=MASK, do_sample=False, max_new_tokens=NEW_TOKENS, **options
    )
    found = ours.generate(IDS, MASK, max_new_tokens=NEW_TOKENS, **options)
    assert torch.equal(found, expected)
    assert torch.equal(ours.generate(IDS, MASK, max_new_tokens=NEW_TOKENS, speculate=True, **options), found)


@pytest.mark.parametrize("options", [*OPTIONS, {"length_penalty": 2.0}, {"early_stopping": True}], ids=str)
def test_beams(pair: Pair, options: dict[str, Any]) -> None:
    search = {"num_beams": 4, "num_return_sequences": 3} | options
    ours, theirs = with_an_end(pair, **search)
    common = {"max_new_tokens": NEW_TOKENS} | search
    expected = theirs.generate(
        IDS, attention_mask=MASK, return_dict_in_generate=True, output_scores=True, **common
    )
    found = ours.generate(IDS, MASK, return_scores=True, **common)
    end = ours.config.eos_token_id
    torch.testing.assert_close(found.sequence_scores, expected.sequences_scores, atol=2e-5, rtol=0)
    ours_rows, their_rows = trimmed(found.sequences, end), trimmed(expected.sequences, end)
    for first in range(0, len(ours_rows), 3):
        # In any order: the scores above say which, but for hypotheses whose scores are the same to the last bit.
        assert set(ours_rows[first : first + 3]) == set(their_rows[first : first + 3])
    assert int((found.sequences[:, 1:] == end).any(1).sum()) > 0


@pytest.mark.parametrize("beams", [1, 4])
def test_prefix(pair: Pair, beams: int) -> None:
    ours, theirs = with_an_end(pair)
    start = torch.tensor([[0, 9, 20]]).repeat(len(LENGTHS), 1)
    common = {"max_length": 12, "num_beams": beams, "repetition_penalty": 1.2}
    expected = theirs.generate(IDS, attention_mask=MASK, decoder_input_ids=start, do_sample=False, **common)
    found = ours.generate(IDS, MASK, decoder_prefix_ids=[9, 20], **common)
    end = ours.config.eos_token_id
    assert trimmed(found, end) == trimmed(expected, end)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.6, "top_k": 9},
        {"top_p": 0.7},
        {"min_p": 0.2},
        {"temperature": 1.7, "top_k": 30, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.3},
    ],
    ids=str,
)
def test_what_is_drawn_from(pair: Pair, options: dict[str, Any]) -> None:
    """The distribution at every step of what Transformers drew is ours for the same history."""
    ours, theirs = pair
    torch.manual_seed(1)
    drawn = theirs.generate(
        IDS,
        attention_mask=MASK,
        max_new_tokens=5,
        min_new_tokens=5,
        do_sample=True,
        return_dict_in_generate=True,
        output_scores=True,
        **({"top_k": 0} | options),
    )
    settings = GenerationSettings(do_sample=True, **options)
    end = ours.config.eos_token_id
    for step, expected in enumerate(drawn.scores):
        history = drawn.sequences[:, : step + 1]
        logits = ours(IDS, MASK, decoder_input_ids=history).logits[:, -1].detach().float()
        if settings.repetition_penalty != 1:
            seen = logits.gather(1, history)
            penalty = settings.repetition_penalty
            seen = torch.where(seen < 0, seen * penalty, seen / penalty)
            logits = logits.scatter(1, history, seen)
        logits[:, end] = float("-inf")
        found = filter_logits(logits, settings).softmax(-1)
        torch.testing.assert_close(found, expected.softmax(-1), atol=1e-4, rtol=1e-3)


def test_draws_are_from_what_the_filters_leave(pair: Pair) -> None:
    """What `generate` itself draws: the frequencies of the second token, behind a given first one."""
    ours, theirs = pair
    common = {"do_sample": True, "top_k": 6, "temperature": 0.8, "repetition_penalty": 1.5}
    prefix = [int(IDS[0, 0]) or 5]
    drawn = ours.generate(
        IDS[:1],
        MASK[:1],
        decoder_prefix_ids=prefix,
        max_new_tokens=1,
        seed=4,
        num_return_sequences=3000,
        **common,
    )[:, 2]
    scores = theirs.generate(
        IDS[:1],
        attention_mask=MASK[:1],
        decoder_input_ids=torch.tensor([[0, *prefix]]),
        max_new_tokens=1,
        return_dict_in_generate=True,
        output_scores=True,
        **common,
    ).scores[0]
    expected = scores[0].softmax(-1)
    found = drawn.bincount(minlength=expected.shape[0]) / drawn.shape[0]
    torch.testing.assert_close(found, expected, atol=0.035, rtol=0)
    assert not bool(found[expected == 0].any())


def test_a_limit_beyond_memory() -> None:
    model = T5ForConditionalGeneration(T5Config(vocab_size=61, d_model=32, d_ff=48, num_layers=2)).eval()
    with pytest.raises(UserError, match=r"no memory for the keys and values .* lower max_new_tokens"):
        model.generate(torch.tensor([[5, 6]]), max_new_tokens=10**11)
