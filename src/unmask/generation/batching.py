"""Which inputs are decoded together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def batches_by_length(
    lengths: Sequence[int], budget: int, *, extra: int = 0, copies: int = 1
) -> Iterator[list[int]]:
    """Inputs of similar length, as many at a time as a budget of tokens allows; the longest first.

    Args:
        lengths: tokens of each input.
        budget: the most tokens that a batch holds, counted as if every input were as long as its longest:
            inputs · copies · (longest + extra). An input that is larger by itself is a batch by itself.
        extra: tokens that may be written for each copy of an input.
        copies: results that are written side by side for an input: beams or samples.

    Yields:
        Places in `lengths`, every one once. Inputs of equal length keep their order.
    """
    batch: list[int] = []
    rows = 0
    # The longest first: what does not fit into memory does not at the beginning.
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if not batch:
            rows = max(1, budget // (copies * max(1, lengths[place] + extra)))
        batch.append(place)
        if len(batch) == rows:
            yield batch
            batch = []
    if batch:
        yield batch
