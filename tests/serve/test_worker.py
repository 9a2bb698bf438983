"""Which results are let into the running batch."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch

worker = pytest.importorskip("unmask.serve.worker", reason="needs the extra serve")

from unmask.generation.plan import Plan  # noqa: E402
from unmask.serve.jobs import Call, LongCall, OverloadedError, Write  # noqa: E402
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


def test_long_calls_let_the_others_in_but_not_each_other() -> None:
    thread, seen = worker.ModelThread(), list[str]()
    first, second = (worker.Worker(name, Limits(), Metrics(), thread, None) for name in ("first", "second"))
    thread._workers = [first, second]

    def long(pause: Any, item: str) -> str:
        for step in range(2):
            seen.append(f"{item}{step}")
            pause()
        return item

    def short(items: list[str]) -> list[str]:
        seen.extend(items)
        return items

    async def given() -> list[Any]:
        return [LongCall(1, function=long, item=item) for item in "abc"] + [
            Call(1, function=short, item="short")
        ]

    one, other, third, quick = asyncio.run(given())
    first.submit([one, third, quick])
    second.submit([other])
    thread.turn()
    # One long call at a time; what is short waits for a step of it, whichever model it asks.
    assert seen == ["a0", "short", "a1", "b0", "b1"]
    thread.turn()
    assert seen[5:] == ["c0", "c1"]
    assert [job.answer for job in (one, other, third, quick)] == ["a", "b", "c", "short"]


def test_what_fails_in_a_long_call_is_its_clients() -> None:
    def fails(pause: Any, item: Any) -> None:
        pause("so far")
        raise ZeroDivisionError

    async def job() -> LongCall:
        return LongCall(1, function=fails)

    one = made()
    one._start = None
    given = asyncio.run(job())
    one.submit([given])
    one.turn()
    assert isinstance(given.error, ZeroDivisionError) and given.parts == ["so far"]
    assert not one._thread.is_busy
