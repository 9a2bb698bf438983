"""Engines of a benchmark, each in a process of its own, and how they take turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

PEERS = Path(__file__).resolve().parent / "peers"


class Engine(NamedTuple):
    """Where an engine is found.

    Attributes:
        module: in peers/.
        work: what it is asked to do there, a precision perhaps.
        package: that it needs.
    """

    module: str
    work: str
    package: str


class Worker:
    """An engine in a process of its own; answers one line of JSON for each."""

    def __init__(self, module: str, work: str, place: Path, threads: int) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [sys.executable, str(PEERS / "worker.py"), module, work, str(place), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.ready = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": f"the process ended with {self.process.wait()}"}

    def run(self, **task: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def start(engines: Mapping[str, Engine], place: Path, threads: int) -> dict[str, Worker]:
    """A process for each engine that can be had; the others are named with the reason.

    Args:
        place: a model's directory, or whatever else they work on.
    """
    workers = {}
    for name, engine in engines.items():
        if find_spec(engine.package) is None:
            print(f"    {name}: {engine.package} is not installed, left out")
            continue
        worker = Worker(engine.module, engine.work, place, threads)
        if "error" in worker.ready:
            print(f"    {name}: {worker.ready['error']}")
            worker.close()
        else:
            workers[name] = worker
    return workers


@dataclass
class Measured:
    """What an engine did.

    Attributes:
        first: its result in the round that warms up.
        seconds, results: of the rounds that count.
    """

    first: Any = None
    seconds: list[float] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)


def take_turns(
    workers: Mapping[str, Worker], rounds: int, **task: int
) -> tuple[dict[str, Measured], dict[str, str]]:
    """Every engine does the task in each round, one after another; a round more warms up.

    Returns:
        what each engine did, and the errors of those that failed.
    """
    done = {name: Measured() for name in workers}
    errors: dict[str, str] = {}
    for number in range(rounds + 1):
        for name, worker in workers.items():
            if name in errors:
                continue
            answer = worker.run(**task)
            time.sleep(0.25)  # let its threads fall asleep
            if "error" in answer:
                errors[name] = answer["error"]
                del done[name]
            elif number == 0:
                done[name].first = answer["result"]
            else:
                done[name].seconds.append(answer["seconds"])
                done[name].results.append(answer["result"])
    return done, errors
