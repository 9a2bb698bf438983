"""What no other service has: gaps, suspicions, scores, tasks, explanations."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request

from unmask.errors import UserError
from unmask.generation.refinement import Refinement
from unmask.serve.bodies import Detection, Explanation, Filling, Pairs, Rounds, Rows
from unmask.serve.explaining import Question
from unmask.serve.jobs import Write
from unmask.serve.models import ServedModel
from unmask.serve.service import Service
from unmask.serve.streaming import EventsOfGaps
from unmask.serve.writing import check_length, check_limit, write_of
from unmask.t5.filling import gap_source, gap_texts
from unmask.tasks.kinds.kind import Row
from unmask.tasks.t5 import T5TaskModel
from unmask.text.gaps import GAP


def task_routes(service: Service) -> APIRouter:
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
    async def rounds(body: Rounds, request: Request) -> dict[str, Any]:
        model = service.model(request, body.model, "rounds")
        check_limit(body.max_tokens, service.limits)
        plan = Refinement(rounds=body.rounds, revisions=body.revisions, judged=body.judged)
        service.check_texts([body.input], 1)
        (row,) = await service.encode(model, [body.input])
        size = (len(row) + body.max_tokens) * (body.rounds + body.revisions)
        found = await service.call(request, model, "rounds", [(row, body.max_tokens, plan)], [size])
        return {"model": body.model, **found[0]}

    @router.post("/detect")
    async def detect(body: Detection, request: Request) -> dict[str, Any]:
        model = service.model(request, body.model, "detect")
        texts = [body.input] if isinstance(body.input, str) else body.input
        service.check_texts(texts, len(texts))
        rows = await service.encode(model, texts)
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

    @router.post("/classify")
    async def classify(body: Rows, request: Request) -> dict[str, Any]:
        return await _ask_task(service, request, body, "classify")

    @router.post("/tag")
    async def tag(body: Rows, request: Request) -> dict[str, Any]:
        return await _ask_task(service, request, body, "tag")

    @router.post("/answer")
    async def answer(body: Rows, request: Request) -> dict[str, Any]:
        return await _ask_task(service, request, body, "answer")

    @router.post("/explain")
    async def explain(body: Explanation, request: Request) -> dict[str, Any]:
        model = service.model(request, body.model, "explain")
        texts = [body.input, *([] if body.target is None else [body.target])]
        service.check_texts(texts, 1)
        rows = await service.encode(model, texts)
        question = Question(body.input, body.target, body.place, body.steps, body.max_tokens)
        size = sum(map(len, rows)) * body.steps
        found = await service.call(request, model, "explain", [question], [size])
        return {"model": body.model, **found[0]}

    return router


async def _fill_by_t5(
    service: Service, request: Request, model: ServedModel, body: Filling, texts: Sequence[str]
) -> list[dict[str, Any]]:
    check_limit(body.max_tokens, service.limits)
    rows = await asyncio.to_thread(lambda: [gap_source(model.tokenizer, text) for text in texts])
    written = await write_rows(service, request, model, rows, body.max_tokens)
    return [
        {"gaps": gap_texts(model.tokenizer, ids, text.count(GAP))}
        for ids, text in zip(written, texts, strict=True)
    ]


async def _stream_gaps(
    service: Service, model: ServedModel, body: Filling, texts: Sequence[str]
) -> EventsOfGaps:
    if model.t5 is None or len(texts) != 1:
        raise UserError("stream: a T5 fills the gaps of one text token by token; leave it out for others")
    check_limit(body.max_tokens, service.limits)
    text = texts[0]
    row = await asyncio.to_thread(gap_source, model.tokenizer, text)
    check_length(len(row), model, service.limits)
    job = write_of(model, row, body.max_tokens)
    job.eager = True
    model.worker.submit([job])
    gaps = text.count(GAP)
    return EventsOfGaps(model, job, lambda ids: gap_texts(model.tokenizer, ids, gaps), service.limits.seconds)


async def _fill_by_electra(
    service: Service, request: Request, model: ServedModel, body: Filling, texts: Sequence[str]
) -> list[dict[str, Any]]:
    rows = await service.encode(model, texts)
    items = [(text, body.at_least, body.at_most, body.alternatives) for text in texts]
    return await service.call(request, model, "fill", items, [len(row) * body.at_most for row in rows])


async def write_rows(
    service: Service, request: Request, model: ServedModel, rows: Sequence[list[int]], limit: int
) -> list[list[int]]:
    """What a T5 writes for rows of ids, in the running batch."""
    for row in rows:
        check_length(len(row), model, service.limits)
    jobs = [write_of(model, row, limit) for row in rows]

    async def written(job: Write) -> list[int]:
        return [token async for fresh in job.written() for token in fresh]

    async def work() -> list[list[int]]:
        return list(await asyncio.gather(*map(written, jobs)))

    return await service.run(request, model, jobs, work())


def _filled(text: str, gaps: Sequence[str]) -> str:
    parts = text.split(GAP)
    return parts[0] + "".join(gap + part for gap, part in zip(gaps, parts[1:], strict=True))


async def _ask_task(service: Service, request: Request, body: Rows, ability: str) -> dict[str, Any]:
    model = service.model(request, body.model, ability)
    rows = _rows(model, body)
    texts = [" ".join((*row.sources, *row.choices)) for row in rows]
    service.check_texts(texts, len(texts))
    sizes = [len(ids) for ids in await service.encode(model, texts)]
    learner = model.learner
    if isinstance(learner, T5TaskModel) and learner.writes(rows) and not _searches(learner):
        sources = await asyncio.to_thread(learner.sources, rows)
        written = await write_rows(service, request, model, sources, learner.task.max_target_length)
        decoded = learner.tokenizer.batch_decode(written, skip_special_tokens=True)
        found = [learner.answer(row, text.strip()) for row, text in zip(rows, decoded, strict=True)]
    else:
        found = await service.call(request, model, ability, rows, sizes)
    data = [{"prediction": one.text, "confidence": one.confidence} for one in found]
    return {"model": body.model, "data": data}


def _searches(learner: T5TaskModel) -> bool:
    """Whether generation_config.json asks for beams."""
    return learner.model.generation_defaults.get("num_beams", 1) > 1


def _rows(model: ServedModel, body: Rows) -> list[Row]:
    """The rows of a task.

    Raises:
        UserError: a column that is missing, or holds something else.
    """
    task = model.task
    assert task is not None
    columns = task.its_kind.columns(task)
    rows = []
    for number, given in enumerate(body.input if isinstance(body.input, list) else [body.input], start=1):
        if isinstance(given, str) and len(columns) != 1:
            raise UserError(f"the task reads {', '.join(columns)}: give an object with these")
        values = {columns[0]: given} if isinstance(given, str) else given
        missing = [column for column in columns if column not in values]
        if missing:
            raise UserError(f"input {number} has no {missing[0]!r}: the task reads {', '.join(columns)}")
        asked = {name: values[name] for name in columns}
        rows.append(task.its_kind.row(task, number, asked, f"input {number}"))
    return rows
