"""Options: what is nonsense is said, and what generation_config.json says is taken where it fits."""

from __future__ import annotations

from typing import Any

import pytest

from unmask.errors import UserError
from unmask.generation.autoregressive import prompt_of
from unmask.generation.settings import GenerationSettings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beam": 4}, "did you mean num_beams"),
        ({"xyz": 4}, "unknown option"),
        ({"num_beams": 0}, "num_beams=0"),
        ({"max_new_tokens": "5"}, "max_new_tokens=.5. must be a whole number"),
        ({"num_beams": 2.0}, "num_beams=2.0"),
        ({"num_beams": 4, "do_sample": True}, "exclude each other"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_beams to be at least as many"),
        ({"num_return_sequences": 3}, "greedy decoding has one result"),
        ({"temperature": 0.7}, "temperature=0.7 does nothing without do_sample=True"),
        ({"temperature": 0.0, "do_sample": True}, "temperature=0.0 must be above 0"),
        ({"temperature": float("nan"), "do_sample": True}, "temperature=nan"),
        ({"temperature": "hot", "do_sample": True}, "temperature='hot' must be a number"),
        ({"top_p": 0.0, "do_sample": True}, "top_p=0.0"),
        ({"top_p": 1.1, "do_sample": True}, "top_p=1.1"),
        ({"min_p": -0.1, "do_sample": True}, "min_p=-0.1"),
        ({"top_k": -1, "do_sample": True}, "top_k=-1"),
        ({"length_penalty": 2.0}, "does nothing without num_beams"),
        ({"num_beams": 2, "early_stopping": "always"}, "early_stopping='always'"),
        ({"num_beams": 2, "early_stopping": 1}, "early_stopping=1 must be True, False or 'never'"),
        ({"do_sample": True, "seed": "7"}, "seed='7' must be a whole number, or one for each input"),
        ({"do_sample": True, "seed": 7.0}, "seed=7.0 must be a whole number"),
        ({"do_sample": True, "seed": [7, 0.5]}, "must be a whole number"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size=-1"),
        ({"min_new_tokens": -1}, "min_new_tokens=-1"),
        ({"do_sample": 1}, "do_sample=1 must be True or False"),
        ({"speculate": True, "num_beams": 2}, "leave it or num_beams=2 out"),
        ({"speculate": True, "do_sample": True}, "leave it or do_sample=True out"),
        ({"draft_tokens": 4}, "does nothing without speculate=True"),
    ],
    ids=str,
)
def test_nonsense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        GenerationSettings.resolve(options, {})


@pytest.mark.parametrize(
    ("options", "prompt", "message"),
    [
        ({"max_new_tokens": 3, "max_length": 4}, 1, "same thing twice"),
        ({"max_length": 4}, 4, "leaves nothing to write: 4 tokens"),
        ({"max_new_tokens": 0}, 1, "leaves nothing"),
        ({"max_new_tokens": 3, "min_new_tokens": 4}, 1, "min_new_tokens=4 is more than the 3"),
    ],
    ids=str,
)
def test_limits_that_cannot_be_met_are_refused(options: dict[str, Any], prompt: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        GenerationSettings.resolve(options, {}).token_limit(prompt, fallback=511)


FILE = {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True, "max_length": 200, "pad_token_id": 0}


def test_the_file_fills_in_what_the_caller_left_open() -> None:
    settings = GenerationSettings.resolve({}, FILE)
    assert (settings.num_beams, settings.length_penalty, settings.token_limit(1, 511)) == (4, 2.0, 199)
    assert GenerationSettings.resolve({"max_new_tokens": 7}, FILE).token_limit(1, 511) == 7
    assert GenerationSettings.resolve({}, {}).token_limit(1, 511) == 511
    assert GenerationSettings.resolve({}, {"min_length": 5}).min_new_tokens == 4
    assert GenerationSettings.resolve({"max_length": 9}, {"max_new_tokens": 5}).token_limit(1, 511) == 8


@pytest.mark.parametrize(
    "options",
    [{"num_beams": 1}, {"do_sample": True, "temperature": 0.5}, {"speculate": True}],
    ids=str,
)
def test_another_search_leaves_the_files_options_for_its_own_aside(options: dict[str, Any]) -> None:
    settings = GenerationSettings.resolve(options, FILE)
    assert (settings.num_beams, settings.length_penalty, settings.early_stopping) == (1, 1.0, False)


def test_greedy_leaves_the_files_sampling_aside() -> None:
    file = {"do_sample": True, "temperature": 0.3, "top_k": 9}
    assert GenerationSettings.resolve({}, file).temperature == 0.3
    assert GenerationSettings.resolve({"do_sample": False}, file).temperature == 1.0
    assert GenerationSettings.resolve({"num_beams": 4}, file).num_beams == 4


def test_an_error_that_the_file_causes_names_it() -> None:
    with pytest.raises(UserError, match=r"generation_config.json says num_beams=0"):
        GenerationSettings.resolve({}, {"num_beams": 0})
    with pytest.raises(UserError, match=r"generation_config.json: min_length='9' must be a whole number"):
        GenerationSettings.resolve({}, {"min_length": "9"})


def test_prefixes_of_a_wrong_shape_are_refused() -> None:
    import torch

    ids = torch.zeros(1, dtype=torch.int64)
    for prefix in ([[1, 2], [3]], [[1, 2]], torch.zeros(1, 2, 3)):
        with pytest.raises(UserError, match="decoder_prefix_ids"):
            prompt_of(prefix, inputs=2, start_id=0, like=ids)
    assert prompt_of([5, 6], inputs=2, start_id=0, like=ids).tolist() == [[0, 5, 6]] * 2
    assert prompt_of([[0, 5], [0, 6]], inputs=2, start_id=0, like=ids).tolist() == [[0, 5], [0, 6]]
