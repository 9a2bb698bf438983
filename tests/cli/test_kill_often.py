"""Thirty kills at random moments, with data workers: the same bytes in the end."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long

KILLS = 30


@pytest.mark.parametrize("family", ["t5", "electra"])
def test_killed_thirty_times(
    family: str, unmask: Callable[..., Any], corpus: Path, recipes: dict[str, Path], tmp_path: Path
) -> None:
    def start(run: Path) -> Any:
        flags = ["--threads", 1, "--data-workers", 1, "--steps", 400, "--checkpoint-every", 3]
        return unmask("pretrain", recipes[family], "--data", corpus, "--out", run, *flags)

    def weights(run: Path) -> dict[str, bytes]:
        model = run / "model"
        return {str(file.relative_to(model)): file.read_bytes() for file in model.rglob("*.safetensors")}

    begun = time.monotonic()
    assert start(tmp_path / "whole").wait()[0] == 0
    longest = time.monotonic() - begun
    run, draw, kills, at = tmp_path / "run", random.Random(family), 0, []
    while kills < KILLS:
        process = start(run)
        time.sleep(draw.uniform(0.1, 0.8) * longest)
        process.kill(signal.SIGKILL)
        code, _, error = process.wait()
        if code == 0:
            # It was finished before it could be killed: from the beginning.
            shutil.rmtree(run)
            continue
        assert code == -signal.SIGKILL, error
        kills += 1
        checkpoints = sorted(path.name for path in (run / "checkpoints").glob("step-*"))
        at.append(checkpoints[-1] if checkpoints else "none")
        if checkpoints and checkpoints[-1] >= "step-00000300":
            # Towards its end it goes on, then another is begun.
            assert start(run).wait()[0] == 0
            assert weights(run) == weights(tmp_path / "whole"), at
            shutil.rmtree(run)
    code, _, error = start(run).wait()
    assert code == 0, error
    assert weights(run) == weights(tmp_path / "whole"), at
    print(f"{family}: killed with the newest checkpoint", at)  # noqa: T201
