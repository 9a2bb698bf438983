"""The best weights of a run by a value of its evaluations, and the end of a run that gets no better.

What is best so far is read from the metrics log, which is part of a run's state: a run that was killed decides the
same again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unmask import hub

FILE = "best.safetensors"


class BestWeights:
    """Keeps the trained weights of the evaluation with the highest value; of equals, the first.

    Args:
        directory: the run's; the weights are in the file `best.safetensors` there.
        judge: the name of the value. One that is no number counts as lower than any.
        patience: see `LoopSettings`.
    """

    def __init__(self, directory: Path, judge: str, patience: int) -> None:
        self.path, self.judge, self.patience = directory / FILE, judge, patience

    def take(self, lines: Sequence[Mapping[str, Any]], model: nn.Module) -> None:
        """Keep the model's weights if the newest evaluation is the best."""
        if best_evaluation(lines, self.judge) is _evaluations(lines)[-1]:
            hub.write_weights(self.path, {name: each.detach() for name, each in _trained(model).items()})

    def is_over(self, lines: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the last `patience` evaluations brought nothing better."""
        evaluations = _evaluations(lines)
        best = best_evaluation(lines, self.judge)
        if not self.patience or best is None:
            return False
        return (
            len(evaluations) - 1 - next(n for n, one in enumerate(evaluations) if one is best)
            >= self.patience
        )

    @torch.no_grad()
    def put_in(self, model: nn.Module) -> None:
        """Give the model the best weights."""
        kept = hub.read_tensors(self.path)
        for name, parameter in _trained(model).items():
            parameter.copy_(kept[name])


def best_evaluation(lines: Sequence[Mapping[str, Any]], judge: str) -> Mapping[str, Any] | None:
    """The evaluation with the highest value, the first of equals; None where there was none."""
    # max keeps the first of equals.
    return max(_evaluations(lines), key=lambda line: _value(line, judge), default=None)


def _evaluations(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [line for line in lines if line["kind"] == "evaluation"]


def _value(line: Mapping[str, Any], judge: str) -> float:
    value = float(line[judge])
    return -math.inf if math.isnan(value) else value


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: each for name, each in model.named_parameters() if each.requires_grad}
