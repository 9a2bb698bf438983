"""What OpenAI's clients call: completions, chat, embeddings."""

from __future__ import annotations

import asyncio
import base64
import struct
import time
import uuid
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from unmask.serve.bodies import Chat, Completion, Embedding, Writing
from unmask.serve.service import Service
from unmask.serve.streaming import CHAT, COMPLETION, EventStream, Form, chunks, usage_of
from unmask.serve.writing import Result, pieces, results_of


def openai_routes(service: Service) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/completions")
    async def completions(body: Completion, request: Request) -> Response:
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        return await _write(service, request, body, prompts, COMPLETION)

    @router.post("/chat/completions")
    async def chat(body: Chat, request: Request) -> Response:
        return await _write(service, request, body, [body.prompt], CHAT)

    @router.post("/embeddings")
    async def embeddings(body: Embedding, request: Request) -> dict[str, Any]:
        model = service.model(request, body.model, "embed")
        rows = await service.encode_input(model, body.input)
        sizes = [len(row) for row in rows]
        vectors = await service.call(request, model, "embed", rows, sizes)
        return {
            "object": "list",
            "model": body.model,
            "data": [
                {"object": "embedding", "index": number, "embedding": _coded(vector, body.encoding_format)}
                for number, vector in enumerate(vectors)
            ],
            "usage": {"prompt_tokens": sum(sizes), "total_tokens": sum(sizes)},
        }

    return router


def _coded(vector: list[float], form: str) -> list[float] | str:
    return vector if form == "float" else base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


async def _write(
    service: Service, request: Request, body: Writing, prompts: list[str], form: Form
) -> Response:
    model = service.model(request, body.model, "write")
    service.check_texts([*prompts, body.decoder_prefix], len(prompts) * body.n)
    sources = await service.encode(model, prompts)
    results = results_of(model, prompts, sources, body, service.limits)
    jobs = [result.job for result in results]
    head = {"id": f"{form.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model.name}
    if body.stream:
        model.worker.submit(jobs)
        return EventStream(model, jobs, chunks(model, results, body, form, head), service.limits.seconds)

    async def text(result: Result) -> str:
        return "".join([piece async for piece in pieces(model, result, body.stops, streamed=False)])

    async def work() -> list[str]:
        return list(await asyncio.gather(*map(text, results)))

    texts = await service.run(request, model, jobs, work())
    choices = [
        {"index": result.index, "finish_reason": result.finish, **form.message(text)}
        for result, text in zip(results, texts, strict=True)
    ]
    return JSONResponse(head | {"object": form.whole, "choices": choices, "usage": usage_of(results, body.n)})
