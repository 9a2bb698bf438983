"""Compiled functions on the threads that PyTorch has already: starting a second pool would slow both.

PyTorch computes on the threads of an OpenMP runtime, which wait for work in a loop. Where that runtime has
GNU's interface (Linux), a compiled function can be run by the same threads; elsewhere it runs on the caller's alone.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

#: The first numbers of every table that `run` passes on: addresses of OpenMP's functions, 0 where it has none.
HEADER = 3
_BARRIER, _THREAD, _THREADS = range(HEADER)
_FUNCTIONS = ("GOMP_barrier", "omp_get_thread_num", "omp_get_num_threads")
_PARALLEL = "GOMP_parallel"


def run(function: int, table: np.ndarray[Any, np.dtype[np.int64]]) -> None:
    """Run a compiled `void function(int64 *table)` on each of PyTorch's threads, and wait for all.

    Args:
        function: its address.
        table: what it reads; the first `HEADER` numbers are filled in here.
    """
    openmp, threads = _openmp(), torch.get_num_threads()
    if openmp is None or threads == 1:
        table[:HEADER] = 0
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function)(table.ctypes.data)
        return
    table[:HEADER] = _addresses(openmp)
    openmp.GOMP_parallel(
        ctypes.c_void_p(function),
        ctypes.c_void_p(table.ctypes.data),
        ctypes.c_uint(threads),
        ctypes.c_uint(0),
    )


@cache
def _openmp() -> ctypes.CDLL | None:
    """The OpenMP runtime that PyTorch is linked to; None where it does not have GNU's interface."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        # Looked up through PyTorch's own library: a process may hold several runtimes (scikit-learn brings one).
        openmp = ctypes.CDLL(str(library))
    except OSError:
        return None
    return openmp if all(hasattr(openmp, name) for name in (_PARALLEL, *_FUNCTIONS)) else None


@cache
def _addresses(openmp: ctypes.CDLL) -> tuple[int, ...]:
    return tuple(ctypes.cast(openmp[name], ctypes.c_void_p).value or 0 for name in _FUNCTIONS)


@intrinsic
def pointer(typing: Any, address: Any) -> Any:
    """An address (int64) as a `void *`, for `numba.carray`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


@intrinsic
def _call(typing: Any, address: Any) -> Any:
    """`int32 function()` at an address."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [])

    return types.int32(types.int64), generate


@njit
def member(table: Any) -> tuple[int, int]:
    """The calling thread's number among those that run this, and how many they are."""
    if table[_THREAD] == 0:
        return 0, 1
    return int(_call(table[_THREAD])), int(_call(table[_THREADS]))


@njit
def wait(table: Any, members: int) -> None:
    """Go on when all of so many threads are here: all that run this, or one that works for itself."""
    if members > 1:
        _call(table[_BARRIER])


@intrinsic
def draw(typing: Any, address: Any) -> Any:
    """The number at an address, which becomes one more: no other thread gets the same."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, ir.IntType(64)(1), "monotonic")

    return types.int64(types.int64), generate


@njit
def share(count: int, me: int, threads: int) -> tuple[int, int]:
    """The calling thread's part of `count` pieces of work: from, to."""
    return count * me // threads, count * (me + 1) // threads
