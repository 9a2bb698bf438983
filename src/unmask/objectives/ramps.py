"""Settings that change while a model is trained: pure functions of the step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ramp:
    """A straight line from `start` at step 0 to `end` at step `steps`, and `end` from there on."""

    start: float
    end: float
    steps: int

    def at(self, step: int) -> float:
        return self.start + (self.end - self.start) * min(1.0, step / self.steps)

    @staticmethod
    def constant(value: float) -> Ramp:
        return Ramp(value, value, 1)
