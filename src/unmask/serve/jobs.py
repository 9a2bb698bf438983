"""What clients wait for, between the event loop and the models' thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from unmask.generation.plan import Plan

T = TypeVar("T")


class Pause(Protocol):
    """What a long answer calls between two of its steps: all others have their turn, or it ends where it is."""

    def __call__(self, part: Any = None) -> None:
        """Args:
        part: what the client is told of the answer so far; None: nothing.
        """


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

    async def _fresh(self, parts: list[T]) -> AsyncIterator[list[T]]:
        """What the models' thread adds to a list, as it comes, until all is done.

        Raises:
            Exception: why it cannot go on.
        """
        seen = 0
        while True:
            # What is added comes before the end: what is read after `done` is all.
            done, fresh = self.done, parts[seen:]
            seen += len(fresh)
            if fresh:
                yield fresh
            if self.error is not None:
                raise self.error
            if done:
                return
            await self.changed.wait()
            self.changed.clear()


@dataclass(eq=False)
class Asked(Job):
    """A text with an answer that is given as a whole."""

    item: Any = None
    answer: Any = None

    async def result(self) -> Any:
        """The answer.

        Raises:
            Exception: what was met on the way to it.
        """
        while not self.done:
            await self.changed.wait()
            self.changed.clear()
        if self.error is not None:
            raise self.error
        return self.answer


@dataclass(eq=False)
class Call(Asked):
    """A text to be answered at once; those with the same function are answered together.

    Attributes:
        function: items → as many answers, each independent of the others.
    """

    function: Callable[[list[Any]], list[Any]] = list


@dataclass(eq=False)
class LongCall(Asked):
    """A text that is answered by itself, in many steps, between which the others have their turn.

    Attributes:
        function: an item → its answer.
        parts: what it has told so far.
    """

    function: Callable[[Pause, Any], Any] = lambda _, item: item
    parts: list[Any] = field(default_factory=list)

    def told(self) -> AsyncIterator[list[Any]]:
        """The parts as they come, one or several at a time.

        Raises:
            Exception: why it cannot go on.
        """
        return self._fresh(self.parts)


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

    def written(self) -> AsyncIterator[list[int]]:
        """The tokens as they come, one or several at a time.

        Raises:
            Exception: why it cannot go on.
        """
        return self._fresh(self.ids)
