"""Lines of float32 or bfloat16 as compiled code reads and writes them; what is computed in between is float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import carray, njit

from unmask.nn import tiles
from unmask.nn.threads import pointer

#: Types of a line, and what compiled code calls them.
KINDS = {torch.float32: 0, torch.bfloat16: 1}


def available(*kinds: torch.dtype) -> bool:
    """Whether compiled code can read such lines on this processor; not what `torch.compile` is to compile itself."""
    return not torch.compiler.is_compiling() and tiles.available() and all(kind in KINDS for kind in kinds)


def float_bits(value: float) -> int:
    """Of a float32, for a table of int64."""
    return int(np.float32(value).view(np.int32))


@njit
def to_float(number: Any) -> Any:
    """What `float_bits` was made of."""
    return np.int32(number).view(np.float32)


@njit
def bytes_of(kind: int) -> int:
    """Of one number."""
    return 4 if kind == 0 else 2


@njit
def widen(kind: int, address: int, out: Any, count: int, scale: Any) -> None:
    """scale · a line, to float32."""
    if kind == 0:
        x = carray(pointer(address), (count,), np.float32)
        for i in range(count):
            out[i] = x[i] * scale
    else:
        halves = carray(pointer(address), (count,), np.uint16)
        for i in range(count):
            out[i] = np.uint32(np.uint32(halves[i]) << np.uint32(16)).view(np.float32) * scale


@njit
def narrow(kind: int, x: Any, address: int, count: int, scale: Any) -> None:
    """scale · float32, to a line; bfloat16 is rounded to even."""
    if kind == 0:
        out = carray(pointer(address), (count,), np.float32)
        for i in range(count):
            out[i] = x[i] * scale
    else:
        halves = carray(pointer(address), (count,), np.uint16)
        for i in range(count):
            wide = np.float32(x[i] * scale).view(np.uint32)
            rounded = np.uint32(wide + np.uint32(0x7FFF) + ((wide >> np.uint32(16)) & np.uint32(1)))
            # Rounding must not make a number of what is none.
            quiet = np.uint32((wide >> np.uint32(16)) | np.uint32(0x40))
            none = np.uint32(wide & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
            halves[i] = np.uint16(quiet if none else np.uint32(rounded >> np.uint32(16)))


@njit
def clear(kind: int, address: int, count: int) -> None:
    """Zeros."""
    if kind == 0:
        carray(pointer(address), (count,), np.float32)[:] = np.float32(0.0)
    else:
        carray(pointer(address), (count,), np.uint16)[:] = np.uint16(0)
