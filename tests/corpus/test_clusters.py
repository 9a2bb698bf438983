"""Runs on Slurm, played by scripts that run a job's tasks here, and on a Ray cluster of two nodes."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lost_nodes import kill_node

pytest.importorskip("datatrove", reason="needs the extra corpus: pip install 'unmask[corpus]'")

from datatrove.pipeline.base import PipelineStep

from unmask.cli import _run
from unmask.corpus import clusters, intake

SLURM = ["--executor", "slurm", "--partition", "cpu"]

# A job runs from another directory than the one it was submitted from, its tasks one after another.
SBATCH = """
echo "$@" >> {state}/options
script={state}/script; cat > $script
if grep -q -- '--partition=full' $script; then echo 'sbatch: error: invalid partition specified: full' >&2; exit 1; fi
job=$(( $(ls {state} | grep -c '^job') + 1 )); mkdir {state}/job$job; cp $script {state}/job$job/script
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' $script)
output=$(sed -n 's/^#SBATCH --output=//p' $script)
export SLURM_NODELIST=here SLURM_ARRAY_JOB_ID=$job RUN_OFFSET=0
(
    cd /
    for ((task = 0; task <= last; task++)); do
        log=${{output//%A/$job}}
        SLURM_ARRAY_TASK_ID=$task setsid -w bash {state}/job$job/script > ${{log//%a/$task}} 2>&1 </dev/null &
        echo $! > {state}/job$job/task
        wait
        [ ! -e {state}/job$job/cancelled ] || break
    done
    touch {state}/job$job/over
) > /dev/null 2>&1 &
echo "$job;here"
"""
SQUEUE = """
job=${{3}}
[ -e {state}/job$job/over ] || echo RUNNING
"""
SCANCEL = """
echo $1 >> {state}/cancelled; touch {state}/job$1/cancelled
"""
SCONTROL = "echo here"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands that act as Slurm's; the folder of what they note."""
    state, bin_folder = tmp_path / "slurm", tmp_path / "bin"
    state.mkdir()
    bin_folder.mkdir()
    scripts = {"sbatch": SBATCH, "squeue": SQUEUE, "scancel": SCANCEL, "scontrol": SCONTROL}
    for name, text in scripts.items():
        (bin_folder / name).write_text("#!/bin/bash\n" + text.format(state=state))
        (bin_folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    monkeypatch.setattr(clusters, "_LOOK", (0.05, 0.1))
    return state


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files of documents, some of them copies, each for a task of its own; the current directory has them."""
    draw = random.Random(0)
    texts = [" ".join(draw.choice(("one", "two", "three", "four")) for _ in range(9)) for _ in range(40)]
    (tmp_path / "raw").mkdir()
    for number in range(2):
        rows = [json.dumps({"text": text}) + "\n" for text in [*texts[number::2], *texts[:4]]]
        (tmp_path / "raw" / f"{number}.jsonl").write_text("".join(rows))
    monkeypatch.setattr(intake, "GROUP_BYTES", 1)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "raw"


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def clean(out: str, *flags: str) -> int:
    return _run(["corpus", "raw", "--out", out, *flags])


@pytest.mark.parametrize(
    ("steps", "arrays"),
    [
        # Reading and writing; nothing beside the stages.
        ([], ["0-1", "0-1"]),
        # Comparing has stages of one task, and of one for each bucket.
        pytest.param(
            ["--exact-duplicates", "--near-duplicates"],
            ["0-1", "0-1", "0-0", "0-1", "0-13", "0-0", "0-1"],
            marks=pytest.mark.long,
        ),
    ],
    ids=["no-steps", "duplicates"],
)
def test_slurm_gives_the_bytes_of_a_local_run(
    slurm: Path,
    raw: Path,
    tmp_path: Path,
    steps: list[str],
    arrays: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert clean("cluster", *steps, *SLURM, "--sbatch", "account=mine", "--cpus", "2", "--workers", "1") == 0
    error = capsys.readouterr().err
    assert error == ""
    assert clean("local", *steps, "--workers", "1") == 0
    assert contents(tmp_path / "cluster") == contents(tmp_path / "local")
    scripts = [(folder / "script").read_text() for folder in sorted(slurm.glob("job*"))]
    assert [re.findall("--array=(.*)%1\n", script) for script in scripts] == [[array] for array in arrays]
    for option in ("account=mine", "cpus-per-task=2", "mem-per-cpu=2G", "partition=cpu", "time=24:00:00"):
        assert f"#SBATCH --{option}\n" in scripts[0]
    assert not (slurm / "cancelled").exists()


def test_slurm_jobs_run_several_tasks_where_arrays_are_short(
    slurm: Path, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "_MAX_ARRAY", 1)
    assert clean("cluster", *SLURM) == 0
    assert clean("local", "--workers", "1") == 0
    assert contents(tmp_path / "cluster") == contents(tmp_path / "local")
    scripts = [(folder / "script").read_text() for folder in sorted(slurm.glob("job*"))]
    assert [re.findall("--array=(.*)\n", script) for script in scripts] == [["0-0"], ["0-0"]]


@pytest.mark.long
def test_slurm_job_of_a_run_that_was_killed_is_not_given_again(
    slurm: Path, raw: Path, tmp_path: Path
) -> None:
    # Two groups, as here: the second run finds the job of the first.
    program = "from unmask.corpus import intake; intake.GROUP_BYTES = 1; from unmask.cli import _run; _run("
    command = ["corpus", "raw", "--out", "out", *SLURM]
    process = subprocess.Popen([sys.executable, "-c", f"{program}{command})"])
    while process.poll() is None and not (tmp_path / "out/.work/00-read/log/slurm_job").exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert clean("out", *SLURM) == 0
    names = [re.findall("--job-name=(.*)", path.read_text()) for path in sorted(slurm.glob("job*/script"))]
    assert names == [["unmask-00-read"], ["unmask-01-write"]]


def test_slurm_job_ends_when_the_run_is_interrupted(
    slurm: Path, raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(clusters.time, "sleep", interrupt)
    assert clean("out", *SLURM) == 130
    assert capsys.readouterr().err == "stopped: the same command continues from here\n"
    assert (slurm / "cancelled").read_text() == "1\n"


def test_slurm_error_of_a_task_is_told_and_ends_the_job(
    slurm: Path, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (raw / "0.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    assert clean("out", *SLURM) == 2
    error = capsys.readouterr().err
    assert "raw/0.jsonl" in error
    assert "--corrupt skip leaves such files out" in error
    assert len(error.splitlines()) == 1
    assert (slurm / "cancelled").read_text() == "1\n"


def test_slurm_refusal_of_a_job_is_told_in_its_words(
    slurm: Path, raw: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert clean("out", "--executor", "slurm", "--partition", "full") == 2
    error = capfd.readouterr().err
    assert "invalid partition specified: full" in error
    assert len(error.splitlines()) == 1
    assert not list(slurm.glob("job*"))


def test_slurm_job_that_ends_without_its_tasks(
    slurm: Path, raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clusters, "SETTLE", 0.1)
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    assert clean("out", *SLURM) == 2
    error = capsys.readouterr().err
    assert "Slurm's job 1 ended with 2 of 2 tasks not done" in error
    assert "slurm_logs" in error


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--executor", "slurm"], "--executor slurm needs --partition"),
        ([*SLURM, "--ray-address", "auto"], "--ray-address is for --executor ray, not slurm"),
        (["--cpus", "2"], "--cpus is for --executor ray or slurm, not local"),
        ([*SLURM, "--memory", "0"], "--memory 0: it must be at least 1"),
        (["--workers", "0"], "--workers 0: it must be at least 1"),
        ([*SLURM, "--sbatch", "array=0-9"], "--sbatch 'array=0-9'"),
        (SLURM, "the command sbatch is not on the path"),
    ],
    ids=["no-partition", "ray-address", "local-cpus", "memory", "workers", "array", "no-slurm"],
)
def test_settings_that_cannot_be(
    raw: Path,
    flags: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(raw))
    assert clean("out", *flags) == 2
    assert told in capsys.readouterr().err


# --- Ray -------------------------------------------------------------------------------------------------


@pytest.fixture
def ray_cluster(tmp_path: Path) -> Iterator[Any]:
    """A head node without cores, and two nodes for tasks."""
    pytest.importorskip("ray", reason="needs the extra ray: pip install 'unmask[ray]'")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=2, memory=8 << 30, object_store_memory=80 << 20)
        yield cluster
    finally:
        cluster.shutdown()


@pytest.mark.long
def test_ray_gives_the_bytes_of_a_local_run_and_tells_a_task_s_error(
    ray_cluster: Any, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--executor", "ray", "--ray-address", ray_cluster.address]
    assert clean("cluster", *flags, "--exact-duplicates", "--near-duplicates") == 0
    assert clean("local", "--workers", "1", "--exact-duplicates", "--near-duplicates") == 0
    assert contents(tmp_path / "cluster") == contents(tmp_path / "local")
    capsys.readouterr()
    assert clean("big", *flags, "--memory", "9") == 2
    assert "no node of the Ray cluster has --cpus 1 with --memory 9 GiB" in capsys.readouterr().err
    (raw / "0.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    assert clean("out", *flags) == 2
    error = capsys.readouterr().err
    assert "raw/0.jsonl" in error
    assert "--corrupt skip leaves such files out" in error


@pytest.mark.long
def test_ray_tasks_of_a_lost_node_run_elsewhere(ray_cluster: Any, tmp_path: Path) -> None:
    node = ray_cluster.list_all_nodes()[-1]
    doomed = node.node_id

    class Notes(PipelineStep):
        """Notes the nodes that tried a task; waits for ever on the one that will be lost."""

        def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
            import ray

            here = ray.get_runtime_context().get_node_id()
            (tmp_path / f"{rank}-{here}").touch()
            if here == doomed:
                time.sleep(600)

    def lose() -> None:
        while not list(tmp_path.glob(f"*-{doomed}")):
            time.sleep(0.05)
        kill_node(node)

    killer = threading.Thread(target=lose, daemon=True)
    killer.start()
    with clusters.on_ray(ray_cluster.address, clusters.Share()) as make:
        executor = make([Notes()], 6, tmp_path / "log")
        executor.run()
        assert executor.get_incomplete_ranks() == []
    killer.join(10)
    lost = {path.name.split("-")[0] for path in tmp_path.glob(f"*-{doomed}")}
    assert lost
    assert all(len(list(tmp_path.glob(f"{rank}-*"))) > 1 for rank in lost)
