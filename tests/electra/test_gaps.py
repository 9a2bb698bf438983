"""Gaps of several tokens: which lengths are tried, that the best score decides, where the gaps stand then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unmask.electra.answers import Canvas
from unmask.electra.gaps import FilledText, fill_gaps
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.electra.writer import ElectraForConditionalGeneration
from unmask.errors import UserError
from unmask.generation.refinement import Refined, Refinement

CLS, SEP, MASK, FILL = 2, 3, 4, 9


class Fake:
    """Writes FILL everywhere, and likes runs of certain lengths."""

    device = torch.device("cpu")
    positions = 14

    class tokenizer:  # noqa: N801 (stands for an object)
        mask_token_id, mask_token = MASK, "[MASK]"

    def __init__(self, liked: list[int]) -> None:
        self.liked, self.tried = liked, []

    check_length = ElectraForConditionalGeneration.check_length

    def write(self, canvas: Canvas, plan: Refinement, watch: object = None) -> Refined:
        places = (canvas.ids == MASK).nonzero().squeeze(1)
        return Refined(canvas.ids.masked_fill(canvas.ids == MASK, FILL), places, places, places.float())

    def scores(self, written: Refined, canvas: Canvas) -> Tensor:
        scores = []
        for row in written.ids.split(list(canvas.layout.lengths)):
            runs = [
                len(run) for run in "".join("x" if token == FILL else " " for token in row.tolist()).split()
            ]
            self.tried.append(runs)
            scores.append(-sum(abs(run - liked) for run, liked in zip(runs, self.liked, strict=True)))
        return torch.tensor(scores)


def filled(fake: Any, ids: list[int], at_least: int, at_most: int) -> FilledText:
    return fill_gaps(fake, ids, at_least=at_least, at_most=at_most, plan=Refinement())


def test_the_best_score_decides_gap_by_gap() -> None:
    fake = Fake([3, 2])
    text = filled(fake, [CLS, 5, MASK, 6, MASK, SEP], 1, 4)
    assert text.ids == [CLS, 5, 9, 9, 9, 6, 9, 9, SEP]
    assert text.gaps == [(2, 5), (6, 8)]
    assert fake.tried == [[1, 1], [2, 1], [3, 1], [4, 1], [3, 1], [3, 2], [3, 3], [3, 4]]


def test_a_number_that_is_given_is_not_compared() -> None:
    fake = Fake([1])
    text = filled(fake, [CLS, MASK, SEP], 3, 3)
    assert (text.ids, text.gaps, fake.tried) == ([CLS, 9, 9, 9, SEP], [(1, 4)], [])


def test_what_has_no_room_is_not_tried() -> None:
    fake = Fake([9, 9])
    text = filled(fake, [CLS, 5, MASK, 6, MASK, SEP], 2, 9)
    # 14 positions, of which four are given: ten for both gaps, two of them kept for the second.
    assert text.gaps == [(2, 10), (11, 13)]
    assert len(text.ids) == 14


@pytest.mark.parametrize(
    ("ids", "at_least", "at_most", "message"),
    [
        ([CLS, 5, SEP], 1, 2, "no gap"),
        ([CLS, MASK, SEP], 0, 2, "0 to 2 tokens"),
        ([CLS, MASK, SEP], 3, 2, "3 to 2 tokens"),
        ([CLS, MASK, SEP], 13, 14, "15 tokens is longer than the model's 14 positions"),
    ],
)
def test_what_is_refused(ids: list[int], at_least: int, at_most: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        filled(Fake([1]), ids, at_least, at_most)


def test_a_model_fills_as_generate_does_at_a_given_length(
    reference: Callable[..., Any], tmp_path: Path
) -> None:
    reference("ElectraForMaskedLM", vocab_size=130).save_pretrained(tmp_path / "generator")
    reference("ElectraForPreTraining", vocab_size=130).save_pretrained(tmp_path / "discriminator")
    ElectraTokenizer.train(["a vocabulary from a small text"] * 4, 115).save_pretrained(tmp_path)
    model = ElectraForConditionalGeneration.from_pretrained(tmp_path)
    ids = [CLS, 20, MASK, 21, 22, SEP]
    given = model.fill([ids], at_least=3, at_most=3)[0]
    assert given.gaps == [(2, 5)]
    written = model.generate([[CLS, 20, MASK, MASK, MASK, 21, 22, 5, SEP]], max_new_tokens=1)
    assert MASK not in given.ids
    assert written[0, :2].tolist() == given.ids[:2]
    chosen = model.fill([ids, ids], at_most=4)
    assert chosen[0].ids == chosen[1].ids, "texts do not depend on each other"
    best = [model.fill([ids], at_least=size, at_most=size)[0] for size in range(1, 5)]
    assert chosen[0].ids in [text.ids for text in best]
