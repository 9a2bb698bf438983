"""Refinement over a toy proposer and judge, against the same algorithm on one row in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unmask.errors import UserError
from unmask.generation.refinement import Refinement, refine
from unmask.nn.ragged import Layout

MASK, FORBIDDEN, VOCABULARY = 1, (0, 1, 2), 12


def toy_logits(row: list[int], place: int) -> list[float]:
    """Logits that depend on the whole row, so that the order of filling matters."""
    context = sum((i + 3) * token for i, token in enumerate(row))
    return [3 * math.sin(1.7 * place + 2.3 * token + 0.61 * context) for token in range(VOCABULARY)]


def toy_suspicion(row: list[int], place: int) -> float:
    return math.cos(5.1 * row[place] + 0.7 * place + 0.13 * sum(row))


class Toy:
    """The same as callables over packed streams; counts its calls."""

    def __init__(self) -> None:
        self.proposals = 0
        self.judgements = 0
        self.rows_asked = 0

    def propose(self, ids: Tensor, layout: Layout, at: Tensor) -> Tensor:
        self.proposals += 1
        self.rows_asked += at.numel()
        rows = [row.tolist() for row in ids.split(list(layout.lengths))]
        ends = np.cumsum(layout.lengths)
        logits = []
        for place in at.tolist():
            row = int(np.searchsorted(ends, place, side="right"))
            logits.append(toy_logits(rows[row], place - int(ends[row]) + layout.lengths[row]))
        return torch.tensor(logits)

    def judge(self, ids: Tensor, layout: Layout) -> Tensor:
        self.judgements += 1
        rows = [row.tolist() for row in ids.split(list(layout.lengths))]
        return torch.tensor([toy_suspicion(row, place) for row in rows for place in range(len(row))])


def written_by_hand(row: list[int], plan: Refinement, number: int, with_judge: bool) -> list[int]:
    """One row, one place at a time, with lists."""
    row = list(row)
    slots = [place for place, token in enumerate(row) if token == MASK]
    confidence: dict[int, float] = {}

    def proposals(places: list[int], pass_number: int) -> dict[int, tuple[int, float]]:
        uniforms = np.random.default_rng((plan.seed, number, pass_number)).random(len(places))
        found = {}
        for place, uniform in zip(places, uniforms, strict=True):
            logits = toy_logits(row, place)
            allowed = [token for token in range(VOCABULARY) if token not in FORBIDDEN]
            weight = {token: math.exp(logits[token]) for token in allowed}
            if plan.temperature == 0:
                token = max(allowed, key=lambda token: logits[token])
            else:
                heat = {token: math.exp(logits[token] / plan.temperature) for token in allowed}
                height, level = 0.0, uniform * sum(heat.values())
                for token in allowed:
                    height += heat[token]
                    if height > level:
                        break
            found[place] = (token, weight[token] / sum(weight.values()))
        return found

    def fill(block: list[int], first_pass: int) -> None:
        unfilled = block
        for number in range(plan.rounds):
            if not unfilled:
                break
            found = proposals(unfilled, first_pass + number)
            stay = int(len(block) * math.cos(math.pi / 2 * (number + 1) / plan.rounds))
            stay = min(stay, len(unfilled) - 1)
            best = sorted(unfilled, key=lambda place: -found[place][1])[: len(unfilled) - stay]
            for place in best:
                row[place], confidence[place] = found[place]
            unfilled = [place for place in unfilled if place not in best]

    def open_worst(quota: int) -> list[int]:
        if with_judge:
            suspicion = {place: toy_suspicion(row, place) for place in slots}
        else:
            suspicion = {place: -confidence[place] for place in slots}
        worst = sorted(sorted(slots, key=lambda place: -suspicion[place])[:quota])
        for place in worst:
            row[place] = MASK
        return worst

    def write(places: list[int], pass_number: int) -> None:
        found = proposals(places, pass_number)
        for place in places:
            row[place], confidence[place] = found[place]

    size = plan.block or max(len(slots), 1)
    if plan.judged:
        worst = slots
        for round_number in range(plan.rounds):
            write(worst, round_number)
            if round_number + 1 < plan.rounds:
                share = math.cos(math.pi / 2 * (round_number + 1) / plan.rounds)
                worst = open_worst(int(len(slots) * share))
    else:
        for block, first in enumerate(range(0, len(slots), size)):
            fill(slots[first : first + size], block * (plan.rounds + plan.revisions))
    for pass_number in range(plan.rounds, plan.rounds + plan.revisions):
        write(open_worst(math.ceil(len(slots) * plan.share)), pass_number)
    return row


def run(
    rows: list[list[int]], plan: Refinement, *, toy: Toy | None = None, with_judge: bool = True
) -> list[list[int]]:
    toy = toy or Toy()
    layout = Layout.of([len(row) for row in rows])
    out = refine(
        torch.tensor([token for row in rows for token in row]),
        layout,
        toy.propose,
        toy.judge if with_judge else None,
        mask_id=MASK,
        forbidden=torch.tensor(FORBIDDEN),
        plan=plan,
    )
    return [row.tolist() for row in out.ids.split(list(layout.lengths))]


rows_of_tokens = st.lists(
    st.lists(st.sampled_from([MASK, MASK, 3, 4, 5]), min_size=1, max_size=9), min_size=1, max_size=4
)


@settings(deadline=None, max_examples=60)
@given(
    rows=rows_of_tokens,
    rounds=st.integers(1, 6),
    revisions=st.integers(0, 3),
    share=st.sampled_from([0.2, 0.25, 0.5, 1.0]),
    block=st.sampled_from([None, 1, 2, 5]),
    temperature=st.sampled_from([0.0, 1.0, 2.0]),
    judged=st.booleans(),
    with_judge=st.booleans(),
)
def test_as_by_hand(
    rows: list[list[int]],
    rounds: int,
    revisions: int,
    share: float,
    block: int | None,
    temperature: float,
    judged: bool,
    with_judge: bool,
) -> None:
    plan = Refinement(
        rounds=rounds,
        judged=judged,
        revisions=revisions,
        share=share,
        block=None if judged else block,
        temperature=temperature,
        seed=5,
    )
    wanted = [written_by_hand(row, plan, number, with_judge) for number, row in enumerate(rows)]
    assert run(rows, plan, with_judge=with_judge) == wanted


ROWS = [[3, MASK, MASK, MASK, 4], [MASK, 5], [3, 4], [MASK] * 7]


def test_what_stays_and_what_is_never_written() -> None:
    for before, after in zip(ROWS, run(ROWS, Refinement()), strict=True):
        for one, other in zip(before, after, strict=True):
            assert other not in FORBIDDEN if one == MASK else other == one


def test_rows_do_not_know_their_company() -> None:
    plan = Refinement(rounds=3)
    assert run(ROWS, plan) == [run([row], plan)[0] for row in ROWS]
    drawn = Refinement(rounds=3, temperature=1.0, seed=1, block=2)
    assert run(ROWS[:2], drawn) == run(ROWS, drawn)[:2]
    judged = Refinement(rounds=3, judged=True, temperature=1.0)
    assert run(ROWS[:2], judged) == run(ROWS, judged)[:2]


def test_means_of_rows() -> None:
    layout = Layout.of([5, 2, 2, 7])
    ids = torch.tensor([token for row in ROWS for token in row])
    out = refine(
        ids, layout, Toy().propose, None, mask_id=MASK, forbidden=torch.tensor(FORBIDDEN), plan=Refinement()
    )
    assert out.places.tolist() == (ids == MASK).nonzero().squeeze(1).tolist()
    means = out.row_means(torch.arange(11.0), 4)
    assert means.tolist() == [1.0, 3.0, 0.0, 7.0]
    assert ((out.confidence > 0) & (out.confidence <= 1)).all()


def test_seeds_differ_and_repeat() -> None:
    results = [run(ROWS, Refinement(temperature=2.0, seed=seed)) for seed in (0, 0, 1)]
    assert results[0] == results[1] != results[2]


def test_passes_are_as_many_as_asked() -> None:
    toy = Toy()
    run([[MASK] * 20], Refinement(rounds=5, revisions=3), toy=toy)
    assert (toy.proposals, toy.judgements) == (8, 3)
    toy = Toy()
    run([[MASK] * 20], Refinement(rounds=5, judged=True, revisions=1), toy=toy)
    assert (toy.proposals, toy.judgements) == (6, 5)
    toy = Toy()
    run([[MASK, MASK, 3]], Refinement(rounds=8, revisions=1), toy=toy)
    assert (toy.proposals, toy.judgements) == (3, 1)
    assert toy.rows_asked == 2 + 1 + 1
    toy = Toy()
    assert run([[3, 4]], Refinement(), toy=toy) == [[3, 4]]
    assert toy.proposals == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"rounds": 0},
        {"revisions": -1},
        {"share": 0.0},
        {"share": 1.5},
        {"block": 0},
        {"judged": True, "block": 4},
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"seed": -1},
    ],
)
def test_useless_plans(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        Refinement(**wrong)  # type: ignore[arg-type]
