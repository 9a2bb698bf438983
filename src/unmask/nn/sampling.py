"""Drawing a token from a distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.nn import lines
from unmask.nn.row_sampling import sample_rows

# Probabilities are counted in units of 2^-40: sums of integers are exact, in whatever order they are added.
_UNITS = 2.0**40


def sample(logits: Tensor, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
    """One id a row from softmax(logits / temperature).

    The cumulative distribution is inverted at one uniform number a row: the Gumbel trick's distribution
    without its vocabulary's worth of random numbers and logarithms, and without its loss of rare tokens where
    the noise is float32.

    Args:
        logits: (rows, vocabulary); -inf is never drawn.
        uniforms: (rows,) float64 in [0, 1).
        temperature: above 0.

    Returns:
        (rows,) int64.
    """
    probabilities = torch.softmax(logits.float() / temperature, -1)
    heights = (probabilities * _UNITS).long().cumsum(-1)
    total = heights[:, -1:]
    # The clamp is for a uniform that rounds up to 1 when multiplied.
    levels = torch.minimum((uniforms[:, None] * total).long(), total - 1)
    return torch.searchsorted(heights, levels, right=True).squeeze(-1)


def sample_and_likeliest(logits: Tensor, uniforms: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """What `sample` draws, and the likeliest id of each row, the first of several: (rows,) int64 each."""
    if logits.device.type == "cpu" and lines.available(logits.dtype):
        return sample_rows(logits, uniforms, temperature)
    return sample(logits, uniforms, temperature), logits.argmax(-1)
