"""What a model has learnt: a task's rows answered, and what an answer rests on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request

from unmask.errors import UserError
from unmask.serve.bodies import Explanation, Rows
from unmask.serve.explaining import Question, check_size, ids_of
from unmask.serve.models import ServedModel
from unmask.serve.service import Service
from unmask.tasks.heads.sequence import ClassificationModel
from unmask.tasks.kinds.kind import Row
from unmask.tasks.t5 import T5TaskModel
from unmask.text.gaps import GAP


def task_routes(service: Service) -> APIRouter:
    router = APIRouter(prefix="/v1")

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
        row = None if model.task is None else _rows(model, [body.input])[0]
        texts = [str(body.input)] if row is None else [*row.sources, *row.choices]
        service.check_texts([*texts, body.target or ""], 1)
        question = await asyncio.to_thread(_question, model, body, row)
        size = len(question.ids) * body.steps
        found = await service.call(request, model, "explain", [question], [size])
        return {"model": body.model, **found[0]}

    return router


async def _ask_task(service: Service, request: Request, body: Rows, ability: str) -> dict[str, Any]:
    model = service.model(request, body.model, ability)
    rows = _rows(model, body.input if isinstance(body.input, list) else [body.input])
    texts = [" ".join((*row.sources, *row.choices)) for row in rows]
    service.check_texts(texts, len(texts))
    sizes = [len(ids) for ids in await service.encode(model, texts)]
    learner = model.learner
    if isinstance(learner, T5TaskModel) and learner.writes(rows):
        texts = await _written(service, request, model, learner, rows)
        found = [learner.answer(row, text.strip()) for row, text in zip(rows, texts, strict=True)]
    else:
        found = await service.call(request, model, ability, rows, sizes)
    data = [{"prediction": one.text, "confidence": one.confidence} for one in found]
    return {"model": body.model, "data": data}


async def _written(
    service: Service, request: Request, model: ServedModel, learner: T5TaskModel, rows: Sequence[Row]
) -> list[str]:
    """What a T5 writes for rows, as its generation_config.json says."""
    task = learner.task
    sources = await asyncio.to_thread(learner.sources, rows)
    if learner.model.generation_defaults.get("num_beams", 1) > 1:
        options = {"max_new_tokens": task.max_target_length, "max_source_length": task.max_source_length}
        items = [(task.its_kind.source_text(task, row), "", options) for row in rows]
        found = await service.call(request, model, "search", items, list(map(len, sources)))
        return [text for text, _ in found]
    written = await service.write(request, model, sources, task.max_target_length)
    return learner.tokenizer.batch_decode(written, skip_special_tokens=True)


def _question(model: ServedModel, body: Explanation, row: Row | None) -> Question:
    """What is to be explained, as the model reads it: a text, or a row of the task that it has learnt.

    Raises:
        UserError: an object for a model without a task; nothing to explain, or too much.
    """
    learner, target = model.learner, body.target
    types: list[int] | None = None
    if row is None:
        if not isinstance(body.input, str):
            raise UserError(
                f"input: {model.name} has learnt no task, whose row an object would be: give a text"
            )
        text = body.input if model.t5 is not None else body.input.replace(GAP, model.tokenizer.mask_token)
        ids = ids_of(model.tokenizer, text, "input")
    elif isinstance(learner, T5TaskModel):
        ids = learner.sources([row])[0]
        words = learner.task.its_kind.candidates(learner.task, row, learner.labels) or {}
        target = None if target is None else words.get(target, target)
    else:
        assert isinstance(learner, ClassificationModel)
        ids, types = learner.read(row)
    check_size(ids, "input")
    return Question(ids, types, target, body.place, body.steps, body.max_tokens)


def _rows(model: ServedModel, given: Sequence[str | dict[str, Any]]) -> list[Row]:
    """The rows of a task.

    Raises:
        UserError: a column that is missing, or holds something else.
    """
    task = model.task
    assert task is not None
    columns = task.its_kind.columns(task)
    rows = []
    for number, one in enumerate(given, start=1):
        if isinstance(one, str) and len(columns) != 1:
            raise UserError(f"the task reads {', '.join(columns)}: give an object with these")
        values = {columns[0]: one} if isinstance(one, str) else one
        missing = [column for column in columns if column not in values]
        if missing:
            raise UserError(f"input {number} has no {missing[0]!r}: the task reads {', '.join(columns)}")
        asked = {name: values[name] for name in columns}
        rows.append(task.its_kind.row(task, number, asked, f"input {number}"))
    return rows
