"""Results as server-sent events, piece by piece, in OpenAI's forms."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from unmask.errors import UserError
from unmask.serve.bodies import Writing
from unmask.serve.jobs import Write
from unmask.serve.models import ServedModel
from unmask.serve.writing import Result, pieces

logger = logging.getLogger("unmask.serve")


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
    """Submitted results as events. Where the client goes, or the time is up, their jobs end."""

    def __init__(
        self,
        model: ServedModel,
        results: Sequence[Result],
        body: Writing,
        form: Form,
        head: dict[str, Any],
        seconds: float,
    ) -> None:
        self._model, self._results, self._writing, self._form = model, results, body, form
        self._head = head
        self._until = time.monotonic() + seconds
        self._events: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        super().__init__(self._lines(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        feeders = [asyncio.ensure_future(self._feed(result)) for result in self._results]
        try:
            await super().__call__(scope, receive, send)
        finally:
            for feeder in feeders:
                feeder.cancel()
            self._model.worker.cancel([result.job for result in self._results])

    async def _feed(self, result: Result) -> None:
        """One result's events into the queue, None behind the last."""
        put, form = self._events.put_nowait, self._form
        try:
            if form.first is not None:
                put(self._chunk(result, None, form.first))
            async for piece in pieces(self._model, result, self._writing.stops, streamed=True):
                if piece:
                    put(self._chunk(result, None, form.piece(piece)))
            put(self._chunk(result, result.finish, form.piece("")))
            put(None)
        except Exception as problem:
            put(problem)

    async def _lines(self) -> AsyncIterator[str]:
        try:
            left = len(self._results)
            while left:
                event = await asyncio.wait_for(self._events.get(), max(0.0, self._until - time.monotonic()))
                if isinstance(event, Exception):
                    raise event
                if event is None:
                    left -= 1
                else:
                    yield event
        except TimeoutError:
            yield _failure("the time for a request is up", "server_error")
        except UserError as problem:
            yield _failure(str(problem), "invalid_request_error")
        except Exception:
            logger.exception("a stream of %s failed", self._model.name)
            yield _failure("the server failed: its log says why", "server_error")
        else:
            options = self._writing.stream_options
            if options is not None and options.include_usage:
                usage = usage_of(self._results, self._writing.n)
                yield _event(self._head | {"object": self._form.chunk, "choices": [], "usage": usage})
            yield "data: [DONE]\n\n"

    def _chunk(self, result: Result, finish: str | None, content: dict[str, Any]) -> str:
        choice = {"index": result.index, "finish_reason": finish, **content}
        return _event(self._head | {"object": self._form.chunk, "choices": [choice]})


class EventsOfGaps(StreamingResponse):
    """What a T5 has put into the gaps of a text, after each token; where the client goes, the job ends."""

    def __init__(
        self, model: ServedModel, job: Write, gaps: Callable[[list[int]], list[str]], seconds: float
    ) -> None:
        """Args:
        job: submitted already, eager.
        gaps: of the ids as far as they are written.
        """
        self._model, self._job, self._gaps = model, job, gaps
        self._until = time.monotonic() + seconds
        super().__init__(self._lines(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._model.worker.cancel([self._job])

    async def _lines(self) -> AsyncIterator[str]:
        ids: list[int] = []
        try:
            async with asyncio.timeout(max(0.0, self._until - time.monotonic())):
                async for fresh in self._job.written():
                    ids += fresh
                    yield _event({"gaps": self._gaps(ids)})
        except TimeoutError:
            yield _failure("the time for a request is up", "server_error")
        except UserError as problem:
            yield _failure(str(problem), "invalid_request_error")
        except Exception:
            logger.exception("a stream of %s failed", self._model.name)
            yield _failure("the server failed: its log says why", "server_error")
        else:
            yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


def _failure(message: str, kind: str) -> str:
    return _event({"error": {"message": message, "type": kind, "param": None, "code": None}})
