"""Drawing a token from a distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.nn import lines
from unmask.nn.losses import at_least_float32
from unmask.nn.row_sampling import sample_rows

# Probabilities are counted in units of 2^-40: sums of integers are exact, in whatever order they are added.
_UNITS = 2.0**40


def uniforms(seed: int, places: Tensor) -> Tensor:
    """A number in [0, 1) for each place, a function of the seed and the place alone: splitmix64.

    Source: Steele, Lea and Flood, Fast splittable pseudorandom number generators (OOPSLA 2014), the mix of Stafford's
    variant 13 applied twice, with the seed in between.

    Args:
        seed: any integer of 64 bits.
        places: any shape, int64: `Layout.places` at the tokens that are drawn for.

    Returns:
        The places' shape, float64, multiples of 2^-53.
    """
    mixed = _mix(_mix(places + _signed(0x9E3779B97F4A7C15)) ^ _signed(seed))
    return (_shifted(mixed, 11)).double() * 2.0**-53


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """To the right, zeros moving in."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The int64 with the same 64 bits."""
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number


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
    logits = at_least_float32(logits)
    probabilities = torch.softmax(logits / temperature, -1)
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
