"""Nodes of a Ray cluster on this machine that lose their power."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any


def descendants(pid: int) -> list[int]:
    """The processes below one, the deepest last."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            # The name, in parentheses, may hold anything.
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        parents.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        children = parents.get(waiting.pop(0), [])
        found += children
        waiting += children
    return found


def kill_node(node: Any) -> None:
    """What is left of a machine without power: nothing of it runs any more."""
    roots = [info.process.pid for infos in node.all_processes.values() for info in infos]
    for pid in [*roots, *(child for root in roots for child in descendants(root))]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
