"""What clients wait for, between the event loop and the models' thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from unmask.generation.plan import Plan


class OverloadedError(Exception):
    """Too many requests wait."""


@dataclass(eq=False)
class Job:
    """Something that a client waits for. Made in the event loop; the models' thread sets `done` and `error`.

    Attributes:
        size: tokens that it takes of a batch.
        changed: set when there is something new.
        cancelled: nobody waits any more.
        began: when it came.
    """

    size: int
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    cancelled: bool = False
    done: bool = False
    error: Exception | None = None
    began: float = field(default_factory=time.perf_counter)


@dataclass(eq=False)
class Call(Job):
    """A text to be answered at once; those with the same function are answered together.

    Attributes:
        function: items → as many answers, each independent of the others.
    """

    function: Callable[[list[Any]], list[Any]] = list
    item: Any = None
    answer: Any = None

    async def result(self) -> Any:
        """The answer.

        Raises:
            Exception: what the function met.
        """
        await self.changed.wait()
        if self.error is not None:
            raise self.error
        return self.answer


@dataclass(eq=False)
class Write(Job):
    """A result to be written token by token.

    Attributes:
        source: ids to read.
        plan: how to write.
        eager: whether the client is told of each token, or at the end alone.
        ids: what is written.
    """

    source: Sequence[int] = ()
    plan: Plan | None = None
    eager: bool = False
    ids: list[int] = field(default_factory=list)

    async def written(self) -> AsyncIterator[list[int]]:
        """The tokens as they come, one or several at a time.

        Raises:
            Exception: why it cannot go on.
        """
        seen = 0
        while True:
            await self.changed.wait()
            self.changed.clear()
            # Tokens come before the end of them: what is read after `done` is all.
            done, fresh = self.done, self.ids[seen:]
            seen += len(fresh)
            if fresh:
                yield fresh
            if self.error is not None:
                raise self.error
            if done:
                return
