"""How processes find each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from unmask.training.ranks import fresh_store


@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_ended_ranks_have_left_is_out_of_sight(count: int) -> None:
    """Twice over one store, as after a restart, the first rank last: all share, and nothing is there before."""
    store = dist.HashStore()
    store.set_timeout(timedelta(seconds=30))
    for value in ("before", "after"):
        with ThreadPoolExecutor(count) as pool:
            joining = [pool.submit(fresh_store, store, number, count) for number in reversed(range(count))]
            first, *others = reversed([each.result(30) for each in joining])
        assert not first.check(["address"])
        first.set("address", value)
        assert all(other.get("address").decode() == value for other in others)
