"""Learning rates at given steps, worked out by hand."""

from __future__ import annotations

import math

import pytest

from unmask.training.schedules import ScheduleName, schedule


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("constant", {0: 0.25, 2: 0.75, 3: 1.0, 4: 1.0, 11: 1.0}),
        ("linear", {0: 0.25, 3: 1.0, 4: 1.0, 5: 7 / 8, 8: 0.5, 11: 1 / 8}),
        ("cosine", {0: 0.25, 3: 1.0, 4: 1.0, 6: 0.5 + math.sqrt(0.125), 8: 0.5, 11: 0.0380602337}),
        ("inverse-square-root", {0: 1.0, 3: 1.0, 4: 1.0, 9: 2 / 3, 11: 2 / math.sqrt(11)}),
        # The decay runs from the first step on, so the peak is never reached.
        ("electra", {0: 0.25, 3: 9 / 12, 4: 8 / 12, 11: 1 / 12}),
    ],
)
def test_twelve_steps_of_which_four_warm_up(name: ScheduleName, values: dict[int, float]) -> None:
    factor = schedule(name, steps=12, warmup_steps=4)
    assert {step: factor(step) for step in values} == pytest.approx(values)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "inverse-square-root", "electra"])
def test_no_warm_up_begins_at_the_peak_and_no_step_is_wasted(name: ScheduleName) -> None:
    factor = schedule(name, steps=7, warmup_steps=0)
    assert factor(0) == 1.0
    assert min(map(factor, range(7))) > 0


@pytest.mark.parametrize("name", ["linear", "cosine", "electra"])
def test_a_warm_up_longer_than_the_run_only_rises_or_stays_positive(name: ScheduleName) -> None:
    factor = schedule(name, steps=3, warmup_steps=10)
    assert all(0 < factor(step) <= 0.3 for step in range(3))
