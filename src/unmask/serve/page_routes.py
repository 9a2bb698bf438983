"""The page at `/`: three files that lie in the package, and nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

_FILES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
}
_HEADERS = {
    # What the page loads and calls is this service alone, and no other site frames it. (Colours of tokens are set by
    # its own script, which needs no exception.)
    "content-security-policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def page_routes() -> APIRouter:
    """GET / and the two files that it names; no part of the API, so not in its OpenAPI."""
    router = APIRouter(include_in_schema=False)
    place = files("unmask.serve").joinpath("page")
    contents = {name: place.joinpath(name).read_bytes() for name in _FILES}

    @router.get("/")
    async def index() -> Response:
        return _answer("index.html")

    @router.get("/page.css")
    async def style() -> Response:
        return _answer("page.css")

    @router.get("/page.js")
    async def script() -> Response:
        return _answer("page.js")

    def _answer(name: str) -> Response:
        return Response(contents[name], media_type=_FILES[name], headers=_HEADERS)

    return router
