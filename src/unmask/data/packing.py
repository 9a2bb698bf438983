"""Batches of a budget of tokens: which examples share one, from the table of their lengths."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple, cast

import numpy as np

from unmask.data.ragged import number_type
from unmask.errors import UserError


class Packed(NamedTuple):
    """Examples distributed over batches.

    Attributes:
        order: (examples,) places in the table of lengths, batch after batch; inside a batch in the table's order.
        starts: (batches + 1,) int64: where each batch begins in `order`.
    """

    order: np.ndarray
    starts: np.ndarray


def pack(lengths: np.ndarray, budget: int) -> Packed:
    """Put each example, in turn, into the first batch that has room for it (first fit), in O(n log n).

    The batches therefore follow the table's order, but for short examples that fill what is left of earlier ones.
    All but one are more than half full; where examples are short beside the budget, all but the last few are full
    to within the shortest of them.

    Args:
        lengths: (examples,) in tokens.
        budget: most tokens of a batch.

    Raises:
        UserError: an example that is longer than the budget.
    """
    if len(lengths) and (longest := int(lengths.max())) > budget:
        raise UserError(
            f"an example has {longest:,} tokens and batch_tokens is {budget:,}: give a batch at least as many"
        )
    most = 2 * int(lengths.sum()) // budget + 1
    batch = _first_fit()(lengths.astype(np.int64), budget, 1 << (most - 1).bit_length())
    counts = np.bincount(batch)
    order = np.argsort(batch, kind="stable")
    return Packed(order.astype(number_type(len(order))), np.concatenate([[0], np.cumsum(counts)]))


def check_size(batch_size: int | None, batch_tokens: int | None) -> None:
    """Raises:
    UserError: neither or both sizes of a batch, or one below 1.
    """
    if (batch_size is None) == (batch_tokens is None):
        raise UserError("give one of batch_size (rows) and batch_tokens (tokens)")
    for name, value in (("batch_size", batch_size), ("batch_tokens", batch_tokens)):
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}, it must be at least 1")


@cache
def _first_fit() -> Callable[[np.ndarray, int, int], np.ndarray]:
    """The loop, compiled; Numba is imported where a plan is made, and no reading process pays for it otherwise."""
    from numba import njit

    def first_fit(lengths, budget, leaves):  # type: ignore[no-untyped-def]
        # A tree over the batches: each node holds the most room that one below it has.
        room = np.full(2 * leaves, budget)
        batch = np.empty(len(lengths), np.int64)
        for example in range(len(lengths)):
            node = 1
            while node < leaves:
                node *= 2
                if room[node] < lengths[example]:
                    node += 1
            batch[example] = node - leaves
            room[node] -= lengths[example]
            while node > 1:
                node //= 2
                room[node] = max(room[2 * node], room[2 * node + 1])
        return batch

    try:
        return cast(Callable[[np.ndarray, int, int], np.ndarray], njit(cache=True)(first_fit))
    except RuntimeError as error:  # neither beside the sources nor in the user's cache can it be kept
        if "cannot cache" not in str(error):
            raise
        return cast(Callable[[np.ndarray, int, int], np.ndarray], njit(first_fit))
