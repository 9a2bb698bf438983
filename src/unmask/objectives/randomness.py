"""Counter-based randomness: every random draw is a function of the seed, a purpose and an index."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np


def generator(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """A random generator that depends on its arguments alone; no state is carried from call to call.

    Generators of different seeds, purposes or indices are independent: the 128 bits that key Philox (Salmon
    et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") are a hash of all of them. So neither two
    purposes that share a seed nor neighbouring seeds ever share a stream.

    Args:
        seed: the run's seed, any integer.
        purpose: what the draws are for, e.g. "span corruption".
        indices: epoch, batch, example: whatever numbers the place of the draw.
    """
    name = "\0".join([str(int(seed)), purpose, *(str(int(index)) for index in indices)])
    key = int.from_bytes(blake2b(name.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def random_keys(rng: np.random.Generator, places: np.ndarray, place_bits: int) -> np.ndarray:
    """Distinct random uint64 keys that each carry their place in the low bits.

    Sorting the keys therefore shuffles the places, all orders equally likely, and there are no ties.

    Args:
        places: non-negative integers below 2**place_bits, any shape.
        place_bits: how many low bits to overwrite; the bits above stay random.
    """
    keys = rng.integers(0, 2**64, size=places.shape, dtype=np.uint64)
    keys >>= np.uint64(place_bits)
    keys <<= np.uint64(place_bits)
    keys |= places.astype(np.uint64, copy=False)
    return keys
