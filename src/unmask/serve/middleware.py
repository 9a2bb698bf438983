"""Around every request: its id, its key, the size and pace of its body, its line in the log."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unmask.serve.limits import Limits
from unmask.serve.metrics import Metrics

logger = logging.getLogger("unmask.serve")

#: What is logged and counted where the client went before an answer began (nginx's number for it).
GONE = 499
#: Seconds for which the rest of a body that is too large is read and thrown away.
LINGER = 1.0
#: Seconds after which a client that was refused may try again.
RETRY_AFTER = 1
_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def refusal(status: int, message: str, **headers: str) -> JSONResponse:
    """An error in OpenAI's form."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    # What cannot be sent (half of a surrogate pair) is shown as it is escaped.
    shown = message.encode("utf-8", "backslashreplace").decode()
    content = {"error": {"message": shown, "type": kind, "param": None, "code": None}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse(content, status, named)


class Gate:
    """Gives a request its id, refuses one that is too many, without a key or with too large or slow a body, and logs
    how it ended."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, limits: Limits, keys: Sequence[str]) -> None:
        """Args:
        keys: one of them is needed under /v1/; none: nobody is asked.
        """
        self.app, self.metrics, self.limits = app, metrics, limits
        self.keys = [_digest(f"Bearer {key}") for key in keys]
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        number = given if _ID.fullmatch(given) else uuid.uuid4().hex
        scope["request_id"] = number
        began, status = time.perf_counter(), GONE

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = number
            await send(message)

        try:
            await self._pass(scope, headers, receive, answer)
        finally:
            self._note(scope, number, status, time.perf_counter() - began)

    async def _pass(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/v1/") and scope["method"] != "OPTIONS" and not self._knows(headers):
            refused = refusal(401, "no valid API key: send one as Authorization: Bearer KEY")
            await refused(scope, receive, send)
            return
        if not scope["path"].startswith("/v1/"):
            await self._read(scope, headers, receive, send)
            return
        if self._inside >= self.limits.requests:
            self.metrics.refused.labels("").inc()
            await _discard(receive)
            many = f"{self._inside} requests are read or answered: try again later"
            await refusal(503, many, retry_after=str(RETRY_AFTER), connection="close")(scope, receive, send)
            return
        self._inside += 1
        try:
            await self._read(scope, headers, receive, send)
        finally:
            self._inside -= 1

    async def _read(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """Let a request in when its body is there."""
        most = self.limits.body_bytes
        try:
            # Before anything is read, where the client says how much it is.
            told = int(headers.get("content-length", "0"))
            body = (
                b"" if told > most else await asyncio.wait_for(self._body(receive), self.limits.body_seconds)
            )
        except TimeoutError:
            slow = f"the body did not come within {self.limits.body_seconds:g} seconds"
            await refusal(408, slow, connection="close")(scope, receive, send)
            return
        except ValueError:
            await refusal(400, "content-length is no number", connection="close")(scope, receive, send)
            return
        if max(told, len(body)) > most:
            large = f"the body is larger than {most} bytes"
            await _discard(receive)
            await refusal(413, large, connection="close")(scope, receive, send)
            return
        read = False

        async def replay() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)

    def _knows(self, headers: Headers) -> bool:
        if not self.keys:
            return True
        given = _digest(headers.get("authorization", ""))
        # Every key is compared, and at its whole length, so that the time says nothing.
        return sum(hmac.compare_digest(given, key) for key in self.keys) > 0

    async def _body(self, receive: Receive) -> bytes:
        """The body; of one that is too large, a little more than is allowed."""
        parts: list[bytes] = []
        size, more = 0, True
        while more and size <= self.limits.body_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
        return b"".join(parts)

    def _note(self, scope: Scope, number: str, status: int, seconds: float) -> None:
        route: Any = scope.get("route")
        path = getattr(route, "path", "other")
        self.metrics.latency.labels(path, str(status)).observe(seconds)
        fields = {
            "request": number,
            "method": scope["method"],
            "route": path,
            "model": scope.get("model"),
            "status": status,
            "seconds": round(seconds, 4),
        }
        logger.info("answered", extra={"fields": fields})


async def _discard(receive: Receive) -> None:
    """Let a client finish sending, for a moment: one that is cut off sees its connection reset, not the answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            message = await receive()
            while message["type"] == "http.request" and message.get("more_body", False):
                message = await receive()


def _digest(authorization: str) -> bytes:
    return hashlib.sha256(authorization.encode("utf-8", "surrogateescape")).digest()
