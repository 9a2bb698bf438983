"""How much each attention head matters: what is lost without it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: Passes with a head removed that run at once.
_HEADS_AT_ONCE = 32


def falls_without(count: int, score: Callable[[Tensor], Tensor]) -> Tensor:
    """(count,) float64: how far a score falls when a head's output is set to 0 (Michel et al., arXiv 1905.10650, 3.1).

    Args:
        count: heads.
        score: gates (batch, count), 1 for a head that stays and 0 for one that is removed → (batch,) numbers.
    """
    whole = score(torch.ones(1, count))
    without = [
        score(torch.ones(len(some), count).scatter(1, some[:, None], 0.0))
        for some in torch.arange(count).split(_HEADS_AT_ONCE)
    ]
    return (whole - torch.cat(without)).double()
