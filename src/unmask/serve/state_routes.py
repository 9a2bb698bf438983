"""Whether the service lives and is ready, what it counts, which models it has."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, Response

from unmask.serve.middleware import refusal
from unmask.serve.models import ServedModel
from unmask.serve.service import Service


def state_routes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/readyz")
    async def readyz() -> Response:
        return JSONResponse({"status": "ready"}) if service.is_ready else refusal(503, "not ready")

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_described(model) for model in service.models.values()]}

    @router.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        return _described(service.named(name))

    return router


def _described(model: ServedModel) -> dict[str, Any]:
    task = model.task
    about = {} if task is None else {"task": task.name, "columns": task.its_kind.columns(task)}
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "unmask",
        "family": model.family,
        "can": model.can,
        **about,
    }
