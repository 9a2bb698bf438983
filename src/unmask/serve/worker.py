"""The one thread that computes, and each model's jobs in it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch

from unmask.generation.continuous import ContinuousBatch
from unmask.generation.plan import Plan
from unmask.serve.jobs import Call, Job, LongCall, OverloadedError, Write
from unmask.serve.limits import Limits
from unmask.serve.metrics import Metrics

logger = logging.getLogger("unmask.serve")

#: What reads sources and feeds prompts: `unmask.t5.continuous.start` of a model.
Start = Callable[[Sequence[Sequence[int]], Sequence[Plan]], Any]


class _CancelledError(BaseException):
    """Nobody waits for what is being computed. (Nothing on the way to the worker takes it for a fault.)"""


class ModelThread:
    """Gives each model its turn. One thread for all: several would only fight for the same cores."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.closing = False
        # A long call is on its way: the next one begins when it has ended, so that none is buried under another.
        self.is_busy = False
        self._workers: list[Worker] = []
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and not self.closing

    def start(self, workers: Sequence[Worker]) -> None:
        self._workers = list(workers)
        self._thread.start()

    def close(self) -> None:
        """Finish what was accepted, and end."""
        with self.changed:
            self.closing = True
            self.changed.notify()
        self._thread.join()

    def turn(self) -> None:
        """One turn for each model that has something to do."""
        for worker in self._workers:
            if worker.has_work:
                worker.turn()

    def _run(self) -> None:
        while True:
            with self.changed:
                while not self.closing and not any(worker.has_work for worker in self._workers):
                    self.changed.wait()
                if self.closing and not any(worker.has_work for worker in self._workers):
                    return
            self.turn()


class Worker:
    """The jobs of one model, the oldest first; writing goes on between the calls."""

    def __init__(
        self, name: str, limits: Limits, metrics: Metrics, thread: ModelThread, start: Start | None = None
    ) -> None:
        """Args:
        start: of a model that writes.
        """
        self.name, self.limits, self.metrics = name, limits, metrics
        self._thread, self._start = thread, start
        self._waiting: deque[Job] = deque()
        self._batch = ContinuousBatch()
        self._running: set[Write] = set()
        # Tokens read and fed that the batch's caches have room for, a row.
        self._reserved = (0, 0)
        self._news: set[Job] = set()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    @property
    def load(self) -> tuple[int, int]:
        """Jobs that wait, rows that are written."""
        return len(self._waiting), len(self._running)

    # -- from the event loop -------------------------------------------------------------------------------

    def check_room(self, count: int) -> None:
        """Raises:
        OverloadedError: there is no room for so many jobs.
        """
        waiting = len(self._waiting)
        if self._thread.closing or waiting + count > self.limits.queue:
            self.metrics.refused.labels(self.name).inc()
            raise OverloadedError(f"{waiting} wait for {self.name}: try again later")

    def submit(self, jobs: Sequence[Job]) -> None:
        """Have jobs done: all, or none.

        Raises:
            OverloadedError: there is no room for them.
        """
        with self._thread.changed:
            self.check_room(len(jobs))
            self._waiting += jobs
            self.metrics.waiting.labels(self.name).set(len(self._waiting))
            self._thread.changed.notify()

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Nobody waits for these any more: what is not done leaves before the next step."""
        open_jobs = [job for job in jobs if not job.done and not job.cancelled]
        if not open_jobs:
            return
        self.metrics.cancelled.labels(self.name).inc(len(open_jobs))
        with self._thread.changed:
            for job in open_jobs:
                job.cancelled = True
            self._waiting = deque(job for job in self._waiting if not job.cancelled)

    # -- in the models' thread -----------------------------------------------------------------------------

    def turn(self) -> None:
        """Answer what can be answered together, let results into the batch, and write one token of each."""
        try:
            with torch.inference_mode():
                calls = self._take_calls()
                if calls and isinstance(calls[0], LongCall):
                    self._work(calls[0])
                else:
                    self._answer(calls)
                self._write()
        except Exception as error:  # a fault of ours: whoever waits is told, the others are served
            logger.exception("a turn of %s failed", self.name)
            self._fail(error)
        self._tell()

    def _take_calls(self) -> list[Any]:
        """The next calls of one function, as many as are read together; or a long one, if none is on its way."""
        taken: list[Call | LongCall] = []
        used = 0
        with self._thread.changed:
            for job in self._waiting:
                if isinstance(job, LongCall) and not taken and not self._thread.is_busy:
                    taken = [job]
                    break
                if not isinstance(job, Call) or (taken and job.function != taken[0].function):
                    continue
                if taken and (len(taken) == self.limits.rows or used + job.size > self.limits.piece_tokens):
                    break
                taken.append(job)
                used += job.size
            self._remove(taken)
        return taken

    def _take_writes(self) -> list[Write]:
        """The next results that there is room for in the batch; nobody overtakes.

        Caches never get smaller while there are rows: where they are twice as long as needed, nobody enters until all
        have left.
        """
        taken: list[Write] = []
        running = len(self._running)
        if not running:
            self._reserved = (0, 0)
        needed = [max((length(job) for job in self._running), default=0) for length in (_read, _fed)]
        used = 0
        with self._thread.changed:
            for job in self._waiting:
                if not isinstance(job, Write):
                    continue
                count = running + len(taken) + 1
                needed = [max(needed[0], _read(job)), max(needed[1], _fed(job))]
                wide = max(needed[0], self._reserved[0]), max(needed[1], self._reserved[1])
                # What is larger than a batch is a batch by itself.
                if count > 1 and (count > self.limits.rows or count * sum(wide) > self.limits.batch_tokens):
                    break
                if running and sum(wide) > 2 * sum(needed):
                    break
                if taken and used + _read(job) > self.limits.piece_tokens:
                    break
                taken.append(job)
                self._reserved, used = wide, used + _read(job)
            self._remove(taken)
        return taken

    def _remove(self, taken: Sequence[Job]) -> None:
        gone = set(taken)
        self._waiting = deque(job for job in self._waiting if job not in gone)

    def _answer(self, calls: list[Call]) -> None:
        calls = [job for job in calls if not job.cancelled]
        if not calls:
            return
        try:
            answers = calls[0].function([job.item for job in calls])
            for job, answer in zip(calls, answers, strict=True):
                job.answer = answer
                self._end(job)
        except Exception as error:
            if len(calls) > 1:
                # One of them is at fault: the others are answered.
                for job in calls:
                    self._answer([job])
            else:
                self._end(calls[0], error)
            return
        self._note(calls)

    def _work(self, job: LongCall) -> None:
        """Answer a long call; the others have their turns from within it."""
        if job.cancelled:
            return
        self._thread.is_busy = True
        try:
            job.answer = job.function(partial(self._pause, job), job.item)
            self._end(job)
        except _CancelledError:
            return
        except Exception as error:
            self._end(job, error)
            return
        finally:
            self._thread.is_busy = False
        self._note([job])

    def _pause(self, job: LongCall, part: Any = None) -> None:
        """See `unmask.serve.jobs.Pause`.

        Raises:
            _CancelledError: nobody waits for this call any more.
        """
        if job.cancelled:
            raise _CancelledError
        if part is not None:
            job.parts.append(part)
            self._news.add(job)
            self._tell()
        self._thread.turn()
        if job.cancelled:
            raise _CancelledError

    def _note(self, calls: Sequence[Job]) -> None:
        self.metrics.call_rows.labels(self.name).observe(len(calls))
        self.metrics.read.labels(self.name).inc(sum(job.size for job in calls))

    def _write(self) -> None:
        self._leave()
        if self._start is not None:
            self._admit(self._take_writes())
        self._step()
        self.metrics.waiting.labels(self.name).set(len(self._waiting))
        self.metrics.running.labels(self.name).set(len(self._running))
        self._tell()

    def _leave(self) -> None:
        gone = {job for job in self._running if job.cancelled}
        if gone:
            self._batch.leave(gone)
            self._running -= gone

    def _admit(self, writes: list[Write]) -> None:
        if not writes or self._start is None:
            return
        start, sources = self._start, [job.source for job in writes]
        try:
            requests = [(job, job.plan) for job in writes if job.plan is not None]
            self._batch.admit(lambda plans: start(sources, plans), requests)
        except Exception as error:
            if len(writes) > 1:
                for job in writes:
                    self._admit([job])
            else:
                self._end(writes[0], error)
            return
        self._running |= set(writes)
        self.metrics.read.labels(self.name).inc(sum(map(len, sources)))

    def _step(self) -> None:
        if not self._running:
            return
        written = self._batch.step()
        self.metrics.step_rows.labels(self.name).observe(len(written))
        self.metrics.written.labels(self.name).inc(len(written))
        for one in written:
            job: Write = one.request
            if one.error is None:
                if not job.ids:
                    self.metrics.first_token.labels(self.name).observe(time.perf_counter() - job.began)
                job.ids.append(one.id)
                if job.eager:
                    self._news.add(job)
            if one.last:
                self._running.discard(job)
                self._end(job, one.error)

    def _end(self, job: Job, error: Exception | None = None) -> None:
        job.error, job.done = error, True
        self._news.add(job)

    def _fail(self, error: Exception) -> None:
        for job in self._running:
            self._end(job, error)
        self._batch, self._running = ContinuousBatch(), set()

    def _tell(self) -> None:
        """Wake those who wait: one call into the event loop for all."""
        news, self._news = [job for job in self._news if not job.cancelled], set()
        if not news:
            return

        def wake() -> None:
            for job in news:
                job.changed.set()

        # The loop is closed where the process was told twice to end.
        with suppress(RuntimeError):
            news[0].loop.call_soon_threadsafe(wake)


def _read(job: Write) -> int:
    return len(job.source)


def _fed(job: Write) -> int:
    assert job.plan is not None
    return job.plan.capacity
