"""Thirty kills at random moments, with data workers: the same bytes in the end."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long

KILLS = 30
STEPS, EVERY = 90, 3


def weights(run: Path) -> dict[str, bytes]:
    model = run / "model"
    return {str(file.relative_to(model)): file.read_bytes() for file in model.rglob("*.safetensors")}


def newest(run: Path) -> int:
    """The step of the newest checkpoint, 0 where there is none."""
    return max((int(path.name[5:]) for path in (run / "checkpoints").glob("step-*")), default=0)


def moment(run: Path) -> str:
    """What lies on the disk of a run that has been killed."""
    if not newest(run):
        return "start"
    if any((run / "checkpoints").glob(".step-*")):
        return "writing a checkpoint"
    return "steps" if newest(run) < STEPS else "end"


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("family", ["t5", "electra"])
def test_killed_thirty_times(
    family: str,
    compiled: bool,
    unmask: Callable[..., Any],
    corpus: Path,
    recipes: dict[str, Path],
    tmp_path: Path,
) -> None:
    """Of three kills one comes while the process starts, two somewhere between two checkpoints."""

    def start(run: Path) -> Any:
        flags = ["--threads", 1, "--data-workers", 1, "--steps", STEPS]
        flags += ["--checkpoint-every", EVERY, "--evaluate-every", STEPS // 3]
        flags += ["--compile"] if compiled else []
        return unmask("pretrain", recipes[family], "--data", corpus, "--out", run, *flags)

    def finish(run: Path) -> None:
        code, _, error = start(run).wait()
        assert code == 0, error
        assert weights(run) == weights(whole), moments
        shutil.rmtree(run)

    def wait_for(step: int, process: Any, run: Path) -> None:
        while newest(run) < step and process.is_running:
            time.sleep(0.002)

    whole, run, draw, moments = tmp_path / "whole", tmp_path / "run", random.Random(family), Counter[str]()
    begun, process = time.monotonic(), start(whole)
    wait_for(EVERY, process, whole)
    starting = time.monotonic() - begun
    wait_for(STEPS, process, whole)
    between = (time.monotonic() - begun - starting) * EVERY / STEPS
    code, _, error = process.wait()
    assert code == 0, error
    while moments.total() < KILLS:
        process = start(run)
        if moments.total() % 3 == 0:
            time.sleep(draw.uniform(0, starting))
        else:
            wait_for(newest(run) + EVERY * draw.randint(1, 5), process, run)
            time.sleep(draw.uniform(0, between))
        process.kill(signal.SIGKILL)
        code, _, error = process.wait()
        assert code in (0, -signal.SIGKILL), error
        if code != 0:
            moments[moment(run)] += 1
        if newest(run) > 0.8 * STEPS:
            finish(run)
    if run.exists():
        finish(run)
    print(f"{family}: killed during", dict(moments))  # noqa: T201
