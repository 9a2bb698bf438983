"""A linear layer on panels of weights, called from Python: see `unmask.nn.tiles`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numba import carray, njit
from torch import Tensor

from unmask.nn import products, threads
from unmask.nn.compiled import c_function, version_of
from unmask.nn.products import ACTIVATE, ADD, STORE, numbers, product
from unmask.nn.threads import HEADER, member
from unmask.nn.tiles import FIELDS, Panels
from unmask.nn.vectors import ACTIVATIONS

_WEIGHT, _X, _WIDTH, _ROWS, _OUT, _OUT_WIDTH, _ENDING, _ACTIVATION, _SCRATCH, _SIZE = range(
    HEADER, HEADER + 10
)


@njit
def _whole(table: Any) -> None:
    me, members = member(table)
    product(
        table,
        me,
        members,
        numbers(table[_WEIGHT], FIELDS),
        table[_X],
        table[_WIDTH] * 4,
        table[_ROWS],
        -1.0,
        table[_OUT],
        table[_OUT_WIDTH] * 4,
        0,
        0,
        table[_ENDING],
        table[_ACTIVATION],
        table[_SCRATCH],
    )


@cache
def _compiled() -> Any:
    """The product as a C function; compiled once a machine, kept on disk."""
    version = version_of()

    def whole(address: Any) -> None:
        if version >= 0:
            _whole(carray(address, (_SIZE,), np.int64))

    return c_function(whole)


class Tiled:
    """A `PackedLinear` (`unmask.nn.linear`): (rows, in) float32 → (rows, out) float32."""

    def __init__(self, panels: Panels, activation: str | None = None) -> None:
        self.panels = panels
        self.line = np.array(panels.line(), dtype=np.int64)
        self.activation = ACTIVATIONS[activation]

    def __call__(self, x: Tensor) -> Tensor:
        out = x.new_empty(x.shape[0], self.panels.outputs)
        return self._run(x, out, ACTIVATE if self.activation else STORE)

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        return self._run(x, to if to.is_contiguous() else to.contiguous(), ADD)

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
        threads.run(_compiled().address, table)
        return out
