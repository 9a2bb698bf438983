"""Real runs of two processes under torchrun: one is killed, all are stopped politely, one has no room."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unmask.tasks.new_task import new_task
from unmask.training.metrics import read_metrics

pytestmark = pytest.mark.long

FAMILIES = ("t5", "electra")


#: Two processes on one machine.
ALONE = ("--standalone", "--nproc-per-node", "2")


class Launched:
    """`torchrun … -m unmask …`; by default with two processes."""

    def __init__(self, *arguments: object, restarts: int = 0, places: Sequence[str] = ALONE) -> None:
        launcher = ["torch.distributed.run", *places, "--max-restarts", str(restarts)]
        command = [sys.executable, "-m", *launcher, "-m", "unmask"]
        self.popen = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def ranks(self) -> list[int]:
        """The processes' ids."""
        place = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children")
        return [int(pid) for pid in place.read_text().split()]

    def wait(self) -> tuple[int, str, str]:
        out, error = self.popen.communicate(timeout=600)
        return self.popen.returncode, out, error

    def wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition():
            assert self.popen.poll() is None, self.popen.communicate()
            time.sleep(0.02)


def weights(run: Path) -> dict[str, bytes]:
    model = run / "model"
    return {str(file.relative_to(model)): file.read_bytes() for file in model.rglob("*.safetensors")}


def steps_of(run: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))


def is_written(run: Path, step: int) -> bool:
    return any(done >= step for done in steps_of(run))


@pytest.mark.parametrize(("family", "parallel"), [("t5", "fsdp"), ("electra", "ddp")])
def test_a_rank_is_killed_and_the_run_finishes(
    family: str, parallel: str, corpus: Path, recipes: dict[str, Path], tmp_path: Path
) -> None:
    def command(run: Path) -> list[object]:
        flags = ["--parallel", parallel, "--steps", 60, "--data-workers", 1]
        return ["pretrain", recipes[family], "--data", corpus, "--out", run, *flags]

    whole = Launched(*command(tmp_path / "whole")).wait()
    assert whole[0] == 0, whole[2]
    assert whole[1] == f"model: {tmp_path / 'whole' / 'model'}\n", "the first rank alone speaks"
    run = tmp_path / "run"
    launched = Launched(*command(run), restarts=2)
    launched.wait_for(lambda: is_written(run, 10))
    os.kill(launched.ranks()[1], signal.SIGKILL)
    code, out, error = launched.wait()
    assert code == 0, error
    assert out == f"model: {run / 'model'}\n"
    assert weights(run) == weights(tmp_path / "whole")
    assert [line["step"] for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "training"] == [
        *range(1, 61)
    ]


def test_two_machines(corpus: Path, recipes: dict[str, Path], tmp_path: Path) -> None:
    """Two launchers of one process each, that find one another by an address: what two machines run. One process is
    killed; the run ends with the bits of two processes on one machine."""
    flags = ["--parallel", "fsdp", "--steps", 60, "--out"]
    command = ["pretrain", recipes["electra"], "--data", corpus, *flags]
    alone = Launched(*command, tmp_path / "alone").wait()
    assert alone[0] == 0, alone[2]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = f"localhost:{free.getsockname()[1]}"
    run = tmp_path / "run"
    places = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", place]
    machines = [Launched(*command, run, restarts=2, places=places) for _ in range(2)]
    machines[0].wait_for(lambda: is_written(run, 10))
    os.kill(machines[1].ranks()[0], signal.SIGKILL)
    ended = [machine.wait() for machine in machines]
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert "exitcode: -9" in ended[1][2], "the process was killed, and its launcher saw it"
    assert "".join(out for _, out, _ in ended) == f"model: {run / 'model'}\n", "the first rank alone speaks"
    assert weights(run) == weights(tmp_path / "alone")


@pytest.mark.parametrize("to_one", [False, True])
def test_all_ranks_stop_at_the_same_step(
    to_one: bool, corpus: Path, recipes: dict[str, Path], tmp_path: Path
) -> None:
    """SIGTERM to torchrun, which hands it on, or to the second rank alone."""
    run = tmp_path / "run"
    flags = ["--steps", 100_000, "--checkpoint-every", 100_000, "--parallel", "fsdp"]
    launched = Launched("pretrain", recipes["t5"], "--data", corpus, "--out", run, *flags)
    log = run / "metrics.jsonl"
    launched.wait_for(lambda: log.is_file() and len(read_metrics(log)) > 5)
    os.kill(launched.ranks()[1] if to_one else launched.popen.pid, signal.SIGTERM)
    code, _, error = launched.wait()
    assert code != 0
    (step,) = steps_of(run)
    assert error.count(f"stopped after step {step} of 100000, saved: the same command continues") == 1
    assert len(list((run / "checkpoints" / f"step-{step:08d}").glob("shard-*"))) == 2


def test_an_error_is_said_once(recipes: dict[str, Path], tmp_path: Path) -> None:
    launched = Launched("pretrain", recipes["t5"], "--data", tmp_path / "none", "--out", tmp_path / "run")
    code, _, error = launched.wait()
    assert code != 0
    assert error.count("error: ") == 1
    assert "none" in next(line for line in error.splitlines() if line.startswith("error: "))


def test_muon_on_shards_is_refused_before_the_run(
    corpus: Path, recipes: dict[str, Path], tmp_path: Path
) -> None:
    flags = ["--parallel", "fsdp", "--optimiser", "muon"]
    launched = Launched("pretrain", recipes["t5"], "--data", corpus, "--out", tmp_path / "run", *flags)
    code, _, error = launched.wait()
    assert code != 0
    assert error.count("error: the optimiser muon needs whole matrices") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_finetuning_on_two_ranks(
    parallel: str, corpus: Path, recipes: dict[str, Path], tmp_path: Path
) -> None:
    """The weights of one process but for rounding: it evaluates too, the two do not."""
    base = tmp_path / "base"
    begun = Launched("pretrain", recipes["electra"], "--data", corpus, "--out", base, "--steps", 2).wait()
    assert begun[0] == 0, begun[2]
    rows = [(f"review number {n}", "good" if n % 3 else "bad") for n in range(90)]
    (tmp_path / "reviews.csv").write_text("text,label\n" + "".join(f"{a},{b}\n" for a, b in rows))
    task = new_task(tmp_path / "reviews.csv", tmp_path / "reviews").path
    flags = ["--epochs", 2, "--batch-size", 8, "--learning-rate", "1e-3", "--precision", "float32", "--out"]
    command = ["finetune", task, base / "model", *flags]
    one = subprocess.run(
        [sys.executable, "-m", "unmask", *map(str, [*command, tmp_path / "one", "--evaluate-every", 0])],
        capture_output=True,
        text=True,
    )
    assert one.returncode == 0, one.stderr
    code, _, error = Launched(*command, tmp_path / "two", "--parallel", parallel).wait()
    assert code == 0, error
    first, second = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("one", "two"))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-3, atol=2e-4)
    steps = [
        [
            line["step"]
            for line in read_metrics(tmp_path / run / "metrics.jsonl")
            if line["kind"] == "training"
        ]
        for run in ("one", "two")
    ]
    assert steps[0] == steps[1]
