"""Worker processes that end with the process that started them, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for
from typing import Any


@contextmanager
def process_pool(
    workers: int, preload: list[str], initializer: Callable[..., None] | None = None, *arguments: Any
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes from a fork server; when the block fails, what they are at is not waited for.

    Args:
        workers: how many processes.
        preload: modules that the server imports once for all of them.
        initializer: called with the arguments in each process as it starts.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preload)
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(initializer, *arguments))
    try:
        yield pool
    except BaseException:
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(initializer: Callable[..., None] | None, *arguments: Any) -> None:
    """Make a worker end with its parent, whatever ended that, and on an interrupt, which it gets too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_parent()
    if initializer is not None:
        initializer(*arguments)


def end_with_parent() -> None:
    """Called in a process that `multiprocessing` started: it ends when its parent has, be that by SIGKILL."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
