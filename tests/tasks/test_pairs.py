"""Minimal pairs are scored by the sums that the definitions ask for."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unmask.electra.model import ElectraForMaskedLM, ElectraForPreTraining
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.tokenizer import T5Tokenizer
from unmask.tasks.kinds import Row
from unmask.tasks.models import load_for_prediction, load_for_training
from unmask.tasks.task import Task

CPU = torch.device("cpu")
TASK = Task("pairs", "minimal-pairs", ("good", "bad"))
ROWS = [
    Row(1, ("The cat sat on the mat .", "The cat sat on mat ."), ("0",)),
    Row(2, ("I like it .", "I likes it very much ."), ("0",)),
]


def preferred(scores: list[tuple[float, float]]) -> list[str]:
    return ["0" if good > bad else "1" for good, bad in scores]


def test_pseudo_likelihood_masks_each_token_alone(tiny_models: dict[str, Path]) -> None:
    learner = load_for_prediction(TASK, tiny_models["electra"], device=CPU)
    model = ElectraForMaskedLM.from_pretrained(tiny_models["electra"] / "generator")
    tokenizer = ElectraTokenizer.from_pretrained(tiny_models["electra"])

    def score(text: str) -> float:
        ids = tokenizer.encode(text)
        total = 0.0
        for place in range(1, len(ids) - 1):
            masked = torch.tensor([[*ids[:place], tokenizer.mask_token_id, *ids[place + 1 :]]])
            total += float(model(masked).logits[0, place].log_softmax(-1)[ids[place]])
        return total

    with torch.inference_mode():
        wanted = [tuple(map(score, row.sources)) for row in ROWS]
    found = learner.scores(ROWS)  # type: ignore[attr-defined]
    assert torch.tensor(found) == pytest.approx(torch.tensor(wanted), abs=1e-3)
    assert [one.text for one in learner.predict(ROWS)] == preferred(wanted)  # type: ignore[arg-type]


def test_a_discriminator_is_asked_for_its_trust(tiny_models: dict[str, Path]) -> None:
    learner = load_for_prediction(replace(TASK, scoring="discriminator"), tiny_models["electra"], device=CPU)
    model = ElectraForPreTraining.from_pretrained(tiny_models["electra"] / "discriminator")
    tokenizer = ElectraTokenizer.from_pretrained(tiny_models["electra"])

    def score(text: str) -> float:
        logits = model(torch.tensor([tokenizer.encode(text)])).logits[0, 1:-1]
        return float(torch.log(1 - logits.sigmoid()).sum())

    with torch.inference_mode():
        wanted = [tuple(map(score, row.sources)) for row in ROWS]
    assert torch.tensor(learner.scores(ROWS)) == pytest.approx(torch.tensor(wanted), abs=1e-4)  # type: ignore[attr-defined]


def test_t5_fills_the_gap_where_they_differ(tiny_models: dict[str, Path]) -> None:
    learner = load_for_prediction(TASK, tiny_models["t5"], device=CPU)
    tokenizer = T5Tokenizer.from_pretrained(tiny_models["t5"])
    model = T5ForConditionalGeneration.from_pretrained(tiny_models["t5"])
    good, bad = (tokenizer.encode(text, add_special_tokens=False) for text in ROWS[1].sources)
    first, second = tokenizer.sentinel_ids[:2]
    # "I", what differs, "."
    begin = next(place for place, (a, b) in enumerate(zip(good, bad, strict=False)) if a != b)
    tail = next(place for place, (a, b) in enumerate(zip(good[::-1], bad[::-1], strict=False)) if a != b)
    source = torch.tensor([[*good[:begin], first, *good[len(good) - tail :], tokenizer.eos_token_id]])
    fills = [[first, *ids[begin : len(ids) - tail], second] for ids in (good, bad)]
    wanted = model.score(source, fills).tolist()
    assert learner.scores(ROWS[1:])[0] == pytest.approx(wanted, abs=1e-4)  # type: ignore[attr-defined]


def test_what_cannot_be_told_apart_is_not_right(tiny_models: dict[str, Path]) -> None:
    same = [Row(1, ("The cat .", "The cat ."), ("0",))]
    for family in ("t5", "electra"):
        assert load_for_prediction(TASK, tiny_models[family], device=CPU).predict(same)[0].text == "1"


def test_what_does_not_fit_is_said(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is nothing to learn, only to evaluate"):
        load_for_training(TASK, str(tiny_models["t5"]), ROWS, fresh_weights=False, device=CPU)
    pair, half = tiny_models["electra"], tmp_path / "half"
    shutil.copytree(pair / "discriminator", half)
    ElectraTokenizer.from_pretrained(pair).save_pretrained(half)
    with pytest.raises(UserError, match="cannot score by pseudo-likelihood: it has discriminator"):
        load_for_prediction(replace(TASK, scoring="pseudo-likelihood"), half, device=CPU)
    with pytest.raises(UserError, match="two source columns, the acceptable sentence first"):
        Task("pairs", "minimal-pairs", ("good",))
    with pytest.raises(UserError, match="no scoring 'likelihood'"):
        replace(TASK, scoring="likelihood")
