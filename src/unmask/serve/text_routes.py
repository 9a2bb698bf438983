"""What no other service has: gaps, rounds, suspicions, scores."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from unmask.errors import UserError
from unmask.generation.refinement import Refinement
from unmask.serve.bodies import Detection, Filling, Pairs, Rounds
from unmask.serve.jobs import LongCall
from unmask.serve.models import ServedModel
from unmask.serve.service import Service
from unmask.serve.streaming import EventStream, gaps_so_far, rounds_so_far
from unmask.serve.writing import check_length, check_limit, write_of
from unmask.t5.filling import gap_source, gap_texts
from unmask.text.gaps import GAP


def text_routes(service: Service) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/fill")
    async def fill(body: Filling, request: Request) -> Any:
        model = service.model(request, body.model, "fill")
        texts = [body.input] if isinstance(body.input, str) else body.input
        service.check_texts(texts, len(texts))
        if body.stream:
            return await _stream_gaps(service, model, body, texts)
        write = _fill_by_t5 if model.t5 is not None else _fill_by_electra
        found = await write(service, request, model, body, texts)
        filled = zip(texts, found, strict=True)
        return {
            "model": body.model,
            "data": [one | {"text": _filled(text, one["gaps"])} for text, one in filled],
        }

    @router.post("/rounds")
    async def rounds(body: Rounds, request: Request) -> Response:
        model = service.model(request, body.model, "rounds")
        check_limit(body.max_tokens, service.limits)
        plan = Refinement(rounds=body.rounds, revisions=body.revisions, judged=body.judged)
        service.check_texts([body.input], 1)
        (row,) = await service.encode(model, [body.input])
        size = (len(row) + body.max_tokens) * (body.rounds + body.revisions)
        job = LongCall(size, function=model.long["rounds"], item=(row, body.max_tokens, plan))
        if body.stream:
            model.worker.submit([job])
            return EventStream(model, [job], rounds_so_far(job), service.limits.seconds)
        text = await service.run(request, model, [job], job.result())
        return JSONResponse({"model": body.model, "rounds": job.parts, "text": text})

    @router.post("/detect")
    async def detect(body: Detection, request: Request) -> dict[str, Any]:
        model = service.model(request, body.model, "detect")
        rows = await service.encode_input(model, body.input)
        found = await service.call(request, model, "detect", rows, [len(row) for row in rows])
        return {"model": body.model, "data": found}

    @router.post("/score")
    async def score(body: Pairs, request: Request) -> dict[str, Any]:
        model = service.model(request, body.model, "score")
        pairs = body.input if isinstance(body.input, list) else [body.input]
        service.check_texts([text for pair in pairs for text in (pair.source, pair.target)], len(pairs))
        rows = await service.encode(model, [text for pair in pairs for text in (pair.source, pair.target)])
        items = list(zip(rows[::2], rows[1::2], strict=True))
        sizes = [len(source) + len(target) for source, target in items]
        found = await service.call(request, model, "score", items, sizes)
        data = [
            {
                "log_likelihood": sum(shares),
                "tokens": [str(token) for token in model.tokenizer.convert_ids_to_tokens(target)],
                "token_log_likelihoods": shares,
            }
            for shares, (_, target) in zip(found, items, strict=True)
        ]
        return {"model": body.model, "data": data}

    return router


async def _fill_by_t5(
    service: Service, request: Request, model: ServedModel, body: Filling, texts: Sequence[str]
) -> list[dict[str, Any]]:
    check_limit(body.max_tokens, service.limits)
    rows = await asyncio.to_thread(lambda: [gap_source(model.tokenizer, text) for text in texts])
    written = await service.write(request, model, rows, body.max_tokens)
    return [
        {"gaps": gap_texts(model.tokenizer, ids, text.count(GAP))}
        for ids, text in zip(written, texts, strict=True)
    ]


async def _stream_gaps(
    service: Service, model: ServedModel, body: Filling, texts: Sequence[str]
) -> EventStream:
    if model.t5 is None or len(texts) != 1:
        raise UserError("stream: a T5 fills the gaps of one text token by token; leave it out for others")
    check_limit(body.max_tokens, service.limits)
    text = texts[0]
    row = await asyncio.to_thread(gap_source, model.tokenizer, text)
    check_length(len(row), model, service.limits)
    job = write_of(model, row, body.max_tokens)
    job.eager = True
    model.worker.submit([job])
    gaps = gaps_so_far(job, lambda ids: gap_texts(model.tokenizer, ids, text.count(GAP)))
    return EventStream(model, [job], gaps, service.limits.seconds)


async def _fill_by_electra(
    service: Service, request: Request, model: ServedModel, body: Filling, texts: Sequence[str]
) -> list[dict[str, Any]]:
    rows = await service.encode(model, [text.replace(GAP, model.tokenizer.mask_token) for text in texts])
    items = [(text, body.at_least, body.at_most, body.alternatives) for text in texts]
    ability = "alternatives" if body.at_least == body.at_most == 1 else "fill"
    return await service.call(request, model, ability, items, [len(row) * body.at_most for row in rows])


def _filled(text: str, gaps: Sequence[str]) -> str:
    parts = text.split(GAP)
    return parts[0] + "".join(gap + part for gap, part in zip(gaps, parts[1:], strict=True))
