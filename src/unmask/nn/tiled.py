"""A linear layer on panels of weights, called from Python: see `unmask.nn.tiles`."""

from __future__ import annotations

import ctypes
import hashlib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numba import carray, cfunc, njit
from torch import Tensor

from unmask.nn import linear, products, threads, tiles
from unmask.nn.products import ACTIVATE, ACTIVATIONS, ADD, STORE, product
from unmask.nn.threads import HEADER, member, pointer
from unmask.nn.tiles import FIELDS, Panels

_WEIGHT, _X, _WIDTH, _ROWS, _OUT, _OUT_WIDTH, _ENDING, _ACTIVATION, _SCRATCH, _SIZE = range(
    HEADER, HEADER + 10
)


def version_of(*modules: ModuleType) -> int:
    """A number that changes with the source of compiled functions that others call.

    Numba compiles a function again when its own file changed, not when one did that it calls: a function that
    closes over this number is compiled again then too.
    """
    sources = b"".join(
        Path(str(module.__file__)).read_bytes() for module in (threads, tiles, products, *modules)
    )
    return int(hashlib.sha256(sources).hexdigest()[:8], 16)


@njit
def _whole(table: Any) -> None:
    me, members = member(table)
    product(
        table,
        me,
        members,
        carray(pointer(table[_WEIGHT]), (FIELDS,), np.int64),
        table[_X],
        table[_WIDTH] * 4,
        table[_ROWS],
        -1.0,
        table[_OUT],
        table[_OUT_WIDTH] * 4,
        0,
        table[_ENDING],
        table[_ACTIVATION],
        table[_SCRATCH],
    )


@cache
def _compiled() -> int:
    """The address of the product as a C function; compiled once a machine, kept on disk."""
    version = version_of()

    def whole(address: Any) -> None:
        if version >= 0:
            _whole(carray(address, (_SIZE,), np.int64))

    compiled = cfunc("void(voidptr)", cache=True)(whole)
    return ctypes.cast(compiled.ctypes, ctypes.c_void_p).value or 0


class Tiled:
    """A `PackedLinear` (`unmask.nn.linear`): (rows, in) float32 → (rows, out) float32."""

    def __init__(self, panels: Panels, activation: str | None = None) -> None:
        self.panels = panels
        self.line = np.array(panels.line(), dtype=np.int64)
        self.activation = ACTIVATIONS.get(activation, 0)
        #: An activation that is not computed while the product is written.
        self.behind = None if activation in ACTIVATIONS else linear.ACTIVATIONS[activation or ""]

    def __call__(self, x: Tensor) -> Tensor:
        out = x.new_empty(x.shape[0], self.panels.outputs)
        out = self._run(x, out, ACTIVATE if self.activation else STORE)
        return out if self.behind is None else self.behind(out)

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        return self._run(x, to, ADD)

    def _run(self, x: Tensor, out: Tensor, ending: int) -> Tensor:
        x = x.contiguous()
        rows, width = x.shape
        size = products.scratch_bytes(torch.get_num_threads(), rows, width)
        scratch = torch.empty(size, dtype=torch.uint8)
        table = np.zeros(_SIZE, dtype=np.int64)
        table[HEADER:] = (
            self.line.ctypes.data,
            x.data_ptr(),
            width,
            rows,
            out.data_ptr(),
            self.panels.outputs,
            ending,
            self.activation,
            scratch.data_ptr(),
        )
        threads.run(_compiled(), table)
        return out
