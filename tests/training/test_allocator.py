import resource

import pytest
import torch

from unmask.training import allocator
from unmask.training.allocator import kept_memory

pytestmark = pytest.mark.skipif(allocator._glibc() is None, reason="the C library is not glibc")

#: A block of 200 MB has 48,829 pages, or 96 where they are huge.
FEW = 60


def faults() -> int:
    """Pages that the system handed out while a block of 200 MB was made and freed again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(50_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_a_block_is_handed_out_once() -> None:
    with kept_memory():
        faults()
        assert faults() < FEW
    assert faults() > FEW


def test_nested_use_ends_with_the_defaults() -> None:
    with pytest.raises(ValueError), kept_memory():
        raise ValueError
    assert faults() > FEW
