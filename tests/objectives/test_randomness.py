"""Counter-based randomness: a function of its arguments, independent between them."""

from __future__ import annotations

import numpy as np

from unmask.objectives.randomness import generator, random_keys


def test_same_arguments_same_stream() -> None:
    assert (generator(1, "a", 2, 3).random(8) == generator(1, "a", 2, 3).random(8)).all()
    # Pinned, so that a run continues to the same batches after an update of the library.
    assert generator(0, "order", 0).permutation(8).tolist() == [2, 3, 6, 5, 4, 0, 1, 7]


def test_any_other_argument_is_another_stream() -> None:
    names = [(1, "a", 2, 3), (1, "a", 3, 2), (1, "a", 23), (2, "a", 2, 3), (1, "b", 2, 3), (-1, "a", 2, 3)]
    names += [(1, "a", 2), (1, "a"), (12, "a", 3), (1, "a2", 3)]
    first = {generator(*name).integers(2**63) for name in names}
    assert len(first) == len(names)


def test_random_keys_carry_their_places_and_shuffle_them_evenly() -> None:
    places = np.broadcast_to(np.arange(3), (60_000, 3))
    keys = random_keys(generator(0, "test"), places, 2)
    assert (keys & np.uint64(3) == places).all()
    orders, counts = np.unique(np.sort(keys, axis=1) & np.uint64(3), axis=0, return_counts=True)
    assert len(orders) == 6
    assert abs(counts - 10_000).max() < 500
