"""The service as an ASGI application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from unmask import __version__
from unmask.errors import UserError
from unmask.serve.jobs import OverloadedError
from unmask.serve.limits import Limits
from unmask.serve.middleware import GONE, RETRY_AFTER, Gate, refusal
from unmask.serve.models import ServedModel
from unmask.serve.openai_routes import openai_routes
from unmask.serve.page_routes import page_routes
from unmask.serve.service import GoneError, Service
from unmask.serve.state_routes import state_routes
from unmask.serve.task_routes import task_routes
from unmask.serve.text_routes import text_routes

logger = logging.getLogger("unmask.serve")


class Problem(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class Refusal(BaseModel):
    """Every error, in OpenAI's form."""

    error: Problem


def make_app(
    models: Sequence[ServedModel],
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    *,
    keys: Sequence[str] = (),
    origins: Sequence[str] = (),
) -> FastAPI:
    """The service as an ASGI application; its shutdown finishes what was accepted.

    Args:
        keys: API keys, of which requests under /v1/ need one; none: nobody is asked.
        origins: sites whose pages may call it (CORS); none: no other site's.
    """
    service = Service(models, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    refusals: dict[int | str, dict[str, object]] = {"4XX": {"model": Refusal}, "5XX": {"model": Refusal}}
    app = FastAPI(
        title="unmask",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=refusals,
    )
    app.state.service = service
    if origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(origins), allow_methods=["*"], allow_headers=["*"]
        )
    app.add_middleware(Gate, metrics=service.metrics, limits=limits, keys=keys)
    _add_errors(app)
    for router in (
        state_routes(service),
        openai_routes(service),
        text_routes(service),
        task_routes(service),
        page_routes(),
    ):
        app.include_router(router)
    return app


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, problem: RequestValidationError) -> Response:
        first = problem.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        return refusal(400, f"{place}: {first['msg']}" if place else str(first["msg"]))

    @app.exception_handler(HTTPException)
    async def refused(_: Request, problem: HTTPException) -> Response:
        found = refusal(problem.status_code, str(problem.detail))
        found.headers.update(problem.headers or {})
        return found

    @app.exception_handler(UserError)
    async def unusable(_: Request, problem: UserError) -> Response:
        return refusal(400, str(problem))

    @app.exception_handler(OverloadedError)
    async def overloaded(_: Request, problem: OverloadedError) -> Response:
        return refusal(503, str(problem), retry_after=str(RETRY_AFTER))

    @app.exception_handler(TimeoutError)
    async def late(_: Request, __: TimeoutError) -> Response:
        return refusal(504, "the time for a request is up: ask for less")

    @app.exception_handler(GoneError)
    async def gone(_: Request, __: GoneError) -> Response:
        return Response(status_code=GONE)

    @app.exception_handler(Exception)
    async def failed(request: Request, problem: Exception) -> Response:
        fields = {"request": request.scope.get("request_id")}
        logger.error("a request failed", exc_info=problem, extra={"fields": fields})
        return refusal(500, "the server failed: its log says why")
