"""Learning-rate schedules: pure functions from a step to a factor of the peak rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

ScheduleName = Literal["constant", "linear", "cosine", "inverse-square-root", "electra"]

Schedule = Callable[[int], float]


def schedule(name: ScheduleName, *, steps: int, warmup_steps: int) -> Schedule:
    """The factor of the peak learning rate at each step, 0 ≤ step < steps.

    - constant, linear, cosine: rise linearly over the warm-up, then stay, or fall to 0 at `steps`.
    - inverse-square-root: 1/sqrt(max(step, warm-up)), as a factor of its value during the warm-up, which is
      flat (T5 paper, 3.1.2: no rise).
    - electra: the linear decay runs from step 0 and multiplies the warm-up (google-research/electra,
      `model/optimization.py`).

    The first step of a warm-up is 1/warm-up, not 0: a step at rate 0 would be wasted.
    """

    def rise(step: int) -> float:
        return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0

    def progress(step: int) -> float:
        return min(1.0, max(0.0, (step - warmup_steps) / max(1, steps - warmup_steps)))

    functions: dict[str, Schedule] = {
        "constant": rise,
        "linear": lambda step: rise(step) * (1.0 - progress(step)),
        "cosine": lambda step: rise(step) * 0.5 * (1.0 + math.cos(math.pi * progress(step))),
        "inverse-square-root": lambda step: math.sqrt(max(1, warmup_steps) / max(step, warmup_steps, 1)),
        "electra": lambda step: rise(step) * (1.0 - step / steps),
    }
    return functions[name]
