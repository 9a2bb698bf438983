"""Checkpoints written while training goes on: a thread writes a copy of the state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import Tensor

from unmask.errors import UserError
from unmask.training.checkpoints import save_checkpoint, without_remark
from unmask.training.ranks import ALONE, Ranks

logger = logging.getLogger("unmask")


class CheckpointWriter:
    """Writes a run's checkpoints, one at a time, in a thread.

    A step waits for the copying alone, and for an earlier checkpoint that is not yet written. While one is written, the
    copy takes as much memory of the host as the checkpoint takes on the disk. The block waits at its end.

    Args:
        directory, keep, keep_every: see `save_checkpoint`.
        state: the tensors of the run, where they lie.
        ranks: all of them make one, at the same time, and save at the same steps.
    """

    def __init__(
        self,
        directory: Path,
        state: Callable[[], Mapping[str, Tensor]],
        *,
        keep: int,
        keep_every: int = 0,
        ranks: Ranks = ALONE,
    ) -> None:
        # What the ranks' threads tell each other must not come between what their steps do.
        self._write = partial(
            save_checkpoint, directory, keep=keep, keep_every=keep_every, ranks=ranks.apart()
        )
        self._state = state
        self._writing: Future[None] | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        # Filters of warnings are the process': here, where the thread does not change them under others.
        self._open.enter_context(without_remark())
        self._thread = self._open.enter_context(ThreadPoolExecutor(1, thread_name_prefix="checkpoint"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        if error is None:
            self.wait()
        elif self.has_failed():
            # What ends the run is said by its own error.
            failure = self._writing.exception() if self._writing is not None else None
            if isinstance(failure, UserError):
                logger.warning("%s", failure)

    def save(self, step: int) -> None:
        """Begin to write the checkpoint of a step; the state may be changed when this returns.

        Raises:
            UserError: there was no room for the one before.
        """
        self.wait()
        # Shards stay shards: what each rank holds is copied.
        copy = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._state().items()}
        self._writing = self._thread.submit(self._write, step, copy)

    def has_failed(self) -> bool:
        """Whether `wait` will raise, as far as is known."""
        writing = self._writing
        return writing is not None and writing.done() and writing.exception() is not None

    def wait(self) -> None:
        """Until all is written.

        Raises:
            UserError: there was no room; the checkpoints that were there are as they were.
            FailedElsewhere: another rank's failed.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()
