"""The models together, and how a request gets its answer from them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

from unmask.serve.jobs import Asked, Call, Job, LongCall, Write
from unmask.serve.limits import Limits
from unmask.serve.metrics import Metrics
from unmask.serve.models import ServedModel
from unmask.serve.worker import ModelThread
from unmask.serve.writing import check_length, write_of

T = TypeVar("T")


class GoneError(Exception):
    """The client does not wait any more."""


class Service:
    """Models by name, in one thread.

    Attributes:
        models: name → model.
        limits: of every request.
        metrics: of all.
    """

    def __init__(self, models: Sequence[ServedModel], limits: Limits) -> None:
        self.models = {model.name: model for model in models}
        self.limits, self.metrics = limits, Metrics()
        self._thread = ModelThread()
        self._thread.start([model.open(limits, self.metrics, self._thread) for model in models])

    @property
    def is_ready(self) -> bool:
        return self._thread.is_alive

    def close(self) -> None:
        """Finish what was accepted."""
        self._thread.close()

    def model(self, request: Request, name: str, ability: str) -> ServedModel:
        """Raises:
        HTTPException: 404, no such model; 400, it can't do that.
        OverloadedError: it has no room; nothing is tokenised in vain.
        """
        model = self.named(name)
        request.scope["model"] = name
        if ability not in model.can:
            able = [other.name for other in self.models.values() if ability in other.can]
            hint = f"{', '.join(able)} can" if able else "no model here can"
            raise HTTPException(400, f"{name} cannot {ability}: {hint}")
        model.worker.check_room(1)
        return model

    def named(self, name: str) -> ServedModel:
        """Raises:
        HTTPException: 404, no such model.
        """
        if name not in self.models:
            raise HTTPException(404, f"no model {name!r}: there are {', '.join(self.models)}")
        return self.models[name]

    def check_texts(self, texts: Sequence[str], count: int) -> None:
        """Before anything is tokenised.

        Args:
            count: of results.

        Raises:
            HTTPException: 400, too many; 413, too long together.
        """
        if count > self.limits.inputs:
            raise HTTPException(400, f"{count} results are asked for, at most {self.limits.inputs} are given")
        size = sum(map(len, texts))
        if size > self.limits.characters:
            raise HTTPException(413, f"{size} characters, at most {self.limits.characters} are read")

    async def encode_input(self, model: ServedModel, given: str | Sequence[str]) -> list[list[int]]:
        """Ids of a request's one text or several, checked before.

        Raises:
            HTTPException: as `check_texts`.
            UserError: as `encode`.
        """
        texts = [given] if isinstance(given, str) else given
        self.check_texts(texts, len(texts))
        return await self.encode(model, texts)

    async def encode(self, model: ServedModel, texts: Sequence[str]) -> list[list[int]]:
        """Ids of checked texts; in a thread, for long ones take a while.

        Raises:
            UserError: one has too many tokens.
        """
        rows: list[list[int]] = await asyncio.to_thread(model.tokenizer.encode_batch, list(texts))
        for row in rows:
            check_length(len(row), model, self.limits)
        return rows

    async def call(
        self, request: Request, model: ServedModel, ability: str, items: Sequence[Any], tokens: Sequence[int]
    ) -> list[Any]:
        """Answers of a model to items, found together with what others ask, or each by itself where it takes long.

        Args:
            tokens: of each item.
        """
        sized = zip(items, tokens, strict=True)
        jobs: list[Asked]
        if ability in model.long:
            jobs = [LongCall(size, function=model.long[ability], item=item) for item, size in sized]
        else:
            jobs = [Call(size, function=model.functions[ability], item=item) for item, size in sized]

        async def results() -> list[Any]:
            return [await job.result() for job in jobs]

        return await self.run(request, model, jobs, results())

    async def write(
        self, request: Request, model: ServedModel, rows: Sequence[list[int]], limit: int
    ) -> list[list[int]]:
        """What a T5 writes for rows of ids, in the running batch.

        Args:
            limit: tokens of each result.
        """
        for row in rows:
            check_length(len(row), model, self.limits)
        jobs = [write_of(model, row, limit) for row in rows]

        async def written(job: Write) -> list[int]:
            return [token async for fresh in job.written() for token in fresh]

        async def work() -> list[list[int]]:
            return list(await asyncio.gather(*map(written, jobs)))

        return await self.run(request, model, jobs, work())

    async def run(
        self, request: Request, model: ServedModel, jobs: Sequence[Job], work: Coroutine[Any, Any, T]
    ) -> T:
        """Have jobs done, and wait for what is made of them as long as the client is there and the time is not up.

        Raises:
            OverloadedError: there is no room for them.
            GoneError, TimeoutError: nobody waits any more.
        """
        try:
            model.worker.submit(jobs)
        except BaseException:
            work.close()
            raise
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_disconnect(request))
        try:
            done, _ = await asyncio.wait(
                {task, gone}, timeout=self.limits.seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if task in done:
                return task.result()
            raise GoneError if done else TimeoutError
        finally:
            gone.cancel()
            task.cancel()
            model.worker.cancel(jobs)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
