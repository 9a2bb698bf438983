"""C functions made of Numba's, kept on disk between runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from numba import cfunc

from unmask.nn import products, threads, tiles, vectors


def version_of(*modules: ModuleType) -> int:
    """A number that changes with the source of this room's compiled code, and of the modules named.

    Numba compiles a function again when its own file changed, not when one did that it calls: a function that
    closes over this number is compiled again then too.
    """
    sources = b"".join(
        Path(str(module.__file__)).read_bytes() for module in (threads, tiles, vectors, products, *modules)
    )
    return int(hashlib.sha256(sources).hexdigest()[:8], 16)


def c_function(function: Callable[[Any], None]) -> Any:
    """Compile `void function(void *)`; what comes back has its `address`.

    Its machine code is freed with what comes back: hold on to that as long as to the address. It is kept beside the
    sources, or in the user's cache, for the next process; where neither can be written, every process compiles.
    """
    try:
        return cfunc("void(voidptr)", cache=True)(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        return cfunc("void(voidptr)")(function)
