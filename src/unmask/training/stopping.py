"""Ctrl-C and SIGTERM end a run between two steps, with its state saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from unmask.training.ranks import Ranks


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM came; the message says whether the state is saved and how to go on."""


@contextmanager
def stop_requests(ranks: Ranks) -> Iterator[threading.Event]:
    """Turns Ctrl-C and SIGTERM into a request that the loop answers between two steps.

    A second Ctrl-C interrupts at once, as usual: the newest checkpoint is whole either way. Not among several ranks:
    they get one from the terminal and one from torchrun, which itself ends what does not end in time.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if requested.is_set() and ranks.count == 1:
            raise KeyboardInterrupt
        requested.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
