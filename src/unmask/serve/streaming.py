"""Answers as server-sent events, piece by piece: results in OpenAI's forms, gaps, rounds."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from unmask.errors import UserError
from unmask.serve.bodies import Writing
from unmask.serve.jobs import Job, LongCall, Write
from unmask.serve.models import ServedModel
from unmask.serve.writing import Result, pieces

logger = logging.getLogger("unmask.serve")

#: Seconds, after the time of a stream, in which the client has to have read the rest.
GRACE = 5.0

Event = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """How a kind of answer looks.

    Attributes:
        prefix: of its id.
        whole, chunk: what it and its pieces are called.
        first: what a stream begins with, if anything.
        piece: of a stream, from its text; of the last, which is empty.
        message: a whole result, from its text.
    """

    prefix: str
    whole: str
    chunk: str
    first: dict[str, Any] | None
    piece: Callable[[str], dict[str, Any]]
    message: Callable[[str], dict[str, Any]]


def _completion(text: str) -> dict[str, Any]:
    return {"text": text, "logprobs": None}


COMPLETION = Form("cmpl", "text_completion", "text_completion", None, _completion, _completion)
CHAT = Form(
    "chatcmpl",
    "chat.completion",
    "chat.completion.chunk",
    {"delta": {"role": "assistant", "content": ""}},
    lambda text: {"delta": {"content": text} if text else {}},
    lambda text: {"message": {"role": "assistant", "content": text}, "logprobs": None},
)


def usage_of(results: Sequence[Result], each: int) -> dict[str, int]:
    """Tokens read and written; a prompt counts once, however many results it has."""
    read, written = sum(r.read for r in results[::each]), sum(r.written for r in results)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


class EventStream(StreamingResponse):
    """What submitted jobs tell, as events. Where the client goes, or the time is up, the jobs end."""

    def __init__(
        self, model: ServedModel, jobs: Sequence[Job], contents: AsyncGenerator[Event], seconds: float
    ) -> None:
        """Args:
        contents: of the events.
        seconds: that there are for all of them.
        """
        self._model, self._jobs, self._contents, self._seconds = model, jobs, contents, seconds
        events = _ended(contents, model.name, seconds)
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            # A client that does not read what is sent keeps its place no longer than others.
            async with asyncio.timeout(self._seconds + GRACE):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            logger.warning("a client of %s reads too slowly: it is left", self._model.name)
        finally:
            self._model.worker.cancel(self._jobs)
            await self._contents.aclose()


async def _ended(contents: AsyncGenerator[Event], name: str, seconds: float) -> AsyncIterator[str]:
    """Events, and how they end: with [DONE], or with what went wrong."""
    until = time.monotonic() + seconds
    try:
        while True:
            left = max(0.0, until - time.monotonic())
            yield _event(await asyncio.wait_for(anext(contents), left))
    except StopAsyncIteration:
        yield "data: [DONE]\n\n"
    except TimeoutError:
        yield _failure("the time for a request is up", "server_error")
    except UserError as problem:
        yield _failure(str(problem), "invalid_request_error")
    except Exception:
        logger.exception("a stream of %s failed", name)
        yield _failure("the server failed: its log says why", "server_error")


async def chunks(
    model: ServedModel, results: Sequence[Result], body: Writing, form: Form, head: Event
) -> AsyncGenerator[Event]:
    """The pieces of results that are written side by side, as they come.

    Args:
        head: what every chunk says.
    """
    events: asyncio.Queue[Event | Exception | None] = asyncio.Queue()

    def chunk(result: Result, finish: str | None, content: Event) -> Event:
        choice = {"index": result.index, "finish_reason": finish, **content}
        return head | {"object": form.chunk, "choices": [choice]}

    async def feed(result: Result) -> None:
        """One result's events into the queue, None behind the last."""
        try:
            if form.first is not None:
                events.put_nowait(chunk(result, None, form.first))
            async for piece in pieces(model, result, body.stops, streamed=True):
                if piece:
                    events.put_nowait(chunk(result, None, form.piece(piece)))
            events.put_nowait(chunk(result, result.finish, form.piece("")))
            events.put_nowait(None)
        except Exception as problem:
            events.put_nowait(problem)

    feeders = [asyncio.ensure_future(feed(result)) for result in results]
    try:
        left = len(results)
        while left:
            event = await events.get()
            if isinstance(event, Exception):
                raise event
            if event is None:
                left -= 1
            else:
                yield event
    finally:
        for feeder in feeders:
            feeder.cancel()
    options = body.stream_options
    if options is not None and options.include_usage:
        yield head | {"object": form.chunk, "choices": [], "usage": usage_of(results, body.n)}


async def gaps_so_far(job: Write, gaps: Callable[[list[int]], list[str]]) -> AsyncGenerator[Event]:
    """What a T5 has put into the gaps of a text, after each token.

    Args:
        job: eager.
        gaps: of the ids as far as they are written.
    """
    ids: list[int] = []
    async for fresh in job.written():
        ids += fresh
        yield {"gaps": gaps(ids)}


async def rounds_so_far(job: LongCall) -> AsyncGenerator[Event]:
    """A pair's passes as they are made, and the text behind the last."""
    async for fresh in job.told():
        for one in fresh:
            yield one
    yield {"text": job.answer}


def _event(content: Event) -> str:
    return f"data: {json.dumps(content)}\n\n"


def _failure(message: str, kind: str) -> str:
    return _event({"error": {"message": message, "type": kind, "param": None, "code": None}})
