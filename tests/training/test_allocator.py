from __future__ import annotations

import subprocess
import sys

import pytest

from unmask.training import allocator

pytestmark = pytest.mark.skipif(allocator._glibc() is None, reason="the C library is not glibc")

#: Pages that the system hands out for the second of two blocks of 200 MB: kept, and before and after that.
PROGRAM = """
import resource
import numpy as np
from unmask.training.allocator import kept_memory

def faults():
    np.ones(25_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(25_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
with kept_memory():
    print(faults())
try:
    with kept_memory():
        raise ValueError
except ValueError:
    print(faults())
"""


def test_a_block_is_handed_out_once() -> None:
    # In a process of its own: what the tests before this one left in the heap decides where a block goes.
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, kept, after = map(int, result.stdout.split())
    # 48,829 pages of 4 kB, or 96 huge ones.
    assert kept < 60 < before
    assert after > 60
