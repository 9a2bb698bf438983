"""Drawing tokens: which ones are in the draw, and the draw."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from operator import index

import torch
from torch import Tensor

from unmask.errors import UserError
from unmask.generation.settings import GenerationSettings
from unmask.nn.sampling import sample

_OFF = float("-inf")


def filter_logits(logits: Tensor, settings: GenerationSettings) -> Tensor:
    """Scale by temperature, then forbid what top-k, top-p and min-p leave out, in Transformers' order.

    Args:
        logits: (rows, vocabulary).

    Returns:
        The same shape, -inf on tokens that are out; the likeliest token always stays.
    """
    if settings.temperature != 1:
        logits = logits / settings.temperature
    if settings.top_k:
        kth = logits.topk(min(settings.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < kth, _OFF)
    if settings.top_p < 1:
        logits = _top_p(logits, settings.top_p)
    if settings.min_p > 0:
        # p < min_p · max(p), without the softmax.
        floor = logits.amax(-1, keepdim=True) + torch.tensor(settings.min_p, dtype=torch.float64).log().item()
        logits = logits.masked_fill(logits < floor, _OFF)
    return logits


def _top_p(logits: Tensor, top_p: float) -> Tensor:
    """The unlikeliest tokens whose probabilities sum to at most 1 - top_p are out (arXiv 1904.09751)."""
    ascending, order = logits.sort(descending=False)
    out = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
    out[:, -1] = False
    return logits.masked_fill(out.scatter(1, order, out), _OFF)


def uniform(seed: int, sample: int, step: int) -> float:
    """A number in [0, 1), 53 bits of it, that is a function of its three arguments on every machine."""
    digest = hashlib.blake2b(f"{seed} {sample} {step}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


class Sampler:
    """Chooses tokens by drawing them. A row's draw depends on (seed, sample, step) alone."""

    def __init__(self, settings: GenerationSettings, inputs: int) -> None:
        """Args:
        inputs: how many inputs the batch has; each has `num_return_sequences` rows, side by side.

        Raises:
            UserError: a number of seeds that is not the number of inputs.
        """
        self.settings = settings
        copies = settings.num_return_sequences
        self.requests = [(seed, copy) for seed in _seeds(settings.seed, inputs) for copy in range(copies)]

    def __call__(self, logits: Tensor, rows: Sequence[int], step: int) -> Tensor:
        """A token for each of these rows of the batch: (kept, vocabulary) logits → (kept,) int64."""
        numbers = [uniform(*self.requests[row], step) for row in rows]
        uniforms = torch.tensor(numbers, dtype=torch.float64, device=logits.device)
        return sample(filter_logits(logits, self.settings), uniforms)


def _seeds(seed: int | Sequence[int] | None, inputs: int) -> list[int]:
    if seed is None:
        return torch.randint(2**63 - 1, (inputs,)).tolist()
    if not isinstance(seed, Iterable):
        return [index(seed)] * inputs
    seeds = [index(one) for one in seed]
    if len(seeds) != inputs:
        raise UserError(
            f"seed names {len(seeds)} seeds for {inputs} inputs: give one for each, or one number"
        )
    return seeds
