"""Which results are let into the running batch."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch

worker = pytest.importorskip("unmask.serve.worker", reason="needs the extra serve")

from unmask.generation.plan import Plan  # noqa: E402
from unmask.serve.jobs import Call, OverloadedError, Write  # noqa: E402
from unmask.serve.limits import Limits  # noqa: E402
from unmask.serve.metrics import Metrics  # noqa: E402


def made(**limits: Any) -> Any:
    return worker.Worker("m", Limits(**limits), Metrics(), worker.ModelThread(), lambda *_: None)


async def write(read: int, limit: int) -> Write:
    plan = Plan(prompt=torch.zeros(1, 1, dtype=torch.int64), end_id=1, pad_id=0, limit=limit)
    return Write(read + limit, source=[5] * read, plan=plan)


def jobs(*sizes: tuple[int, int]) -> list[Write]:
    async def all_of() -> list[Write]:
        return [await write(*size) for size in sizes]

    return asyncio.run(all_of())


def test_rows_count_as_long_as_the_longest() -> None:
    one = made(batch_tokens=100)
    given = jobs((10, 10), (10, 10), (30, 20), (1, 1))
    one.submit(given)
    # Three of the third's size would be 150, and nobody overtakes it.
    assert one._take_writes() == given[:2]
    one._running = set(given[:1])
    assert one._take_writes() == given[2:3]
    one._running = set(given[:1]) | set(given[2:3])
    assert one._take_writes() == []


def test_what_is_larger_than_a_batch_is_one() -> None:
    one = made(batch_tokens=10)
    given = jobs((30, 20), (1, 1))
    one.submit(given)
    assert one._take_writes() == given[:1]


def test_caches_that_are_too_long_are_left() -> None:
    one = made(batch_tokens=1000)
    long, short, last = jobs((300, 100), (5, 5), (6, 5))
    one.submit([long, short])
    assert one._take_writes() == [long, short]
    one._running = {short}
    one.submit([last])
    assert one._take_writes() == []
    one._running = set()
    assert one._take_writes() == [last]


def test_reading_goes_in_pieces() -> None:
    one = made(piece_tokens=25)
    given = jobs((10, 1), (10, 1), (10, 1))
    one.submit(given)
    assert one._take_writes() == given[:2]


def test_all_or_none_may_wait() -> None:
    one = made(queue=3, inputs=3)
    one.submit(jobs((1, 1), (1, 1)))
    with pytest.raises(OverloadedError, match="2 wait for m"):
        one.submit(jobs((1, 1), (1, 1)))
    assert one.load == (2, 0)
    one.cancel(list(one._waiting)[:1])
    one.submit(jobs((1, 1), (1, 1)))
    assert one.load == (3, 0)


def test_one_fault_is_one_clients() -> None:
    def inverse(items: list[Any]) -> list[Any]:
        return [1 / item for item in items]

    async def three() -> list[Call]:
        return [Call(1, function=inverse, item=item) for item in (1, 0, 2)]

    one = made()
    one._start = None
    given = asyncio.run(three())
    one.submit(given)
    one.turn()
    assert [job.answer for job in given] == [1, None, 0.5]
    assert isinstance(given[1].error, ZeroDivisionError) and all(job.done for job in given)
