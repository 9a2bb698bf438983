"""metrics.jsonl: one line a measurement, in the order of steps, also over restarts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unmask import hub


class MetricsLog:
    """Appends lines `{"step": …, "kind": …, …}` to a file, and remembers them.

    Kinds are "training", "evaluation", "averaged" (held-out metrics of averaged checkpoints, at the end), "warning",
    "skipped" and "sample".

    A warning has a "message", and so has a step that was "skipped", what of it was not finite. A sample has a "text",
    and what that was made from. Everything else is numbers.
    """

    def __init__(self, path: Path, *, keep_below: int, written: bool = True) -> None:
        """Open the log of a run that continues after step `keep_below`: later lines are dropped.

        Those were written by steps whose checkpoint was never finished; they will be written again.

        Args:
            written: whether this process writes the file; others of the run remember the lines alone.
        """
        self.path = path
        self.written = written
        self.lines: list[dict[str, Any]] = []
        if path.is_file() and keep_below > 0:
            self.lines = [line for line in read_metrics(path) if line["step"] <= keep_below]
        if written:
            hub.write_atomically(path, "".join(json.dumps(line) + "\n" for line in self.lines))

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        line = {"step": step, "kind": kind, **values}
        self.lines.append(line)
        if self.written:
            with hub.naming(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file that are valid JSON: a kill can leave the last one cut short."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines
