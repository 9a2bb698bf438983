"""Stages on a Ray or a Slurm cluster, by datatrove's executors for them.

The process that began the run stays with it: it starts a stage when the one before is done, so that progress,
errors, an interrupt and the report are those of a run on one machine. What it and the tasks tell each other lies
beside the corpus, in files that all nodes must see under the same paths.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from datatrove.executor import ray as datatrove_ray
from datatrove.executor import slurm as datatrove_slurm
from datatrove.executor.base import PipelineExecutor
from datatrove.executor.ray import RayPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger

from unmask.corpus.executors import ERRORS, MakeExecutor
from unmask.errors import MissingExtraError, UserError
from unmask.hub import atomic_file

#: Seconds after which a file that another node has written is seen here: as long as NFS remembers a directory.
SETTLE = 60.0
#: Seconds for every node to start a process and answer: a busy one takes more than a minute.
PATIENCE = 300.0
# Seconds between two looks at the queue of Slurm: at first, and at most.
_LOOK = (0.25, 10.0)
# A Slurm job array has at most this many jobs where the cluster's owner has not changed it.
_MAX_ARRAY = 1001
# Runs of a stage on Ray, each of which tries a task on a lost node three times more.
_TRIES = 3
_NODES_MUST_SEE = "all nodes must see --out, the inputs and this Python under the same paths"


@dataclass(frozen=True)
class Share:
    """What a task gets of a node, and how many run at once.

    Attributes:
        cpus: cores of a task; a task uses one, more are a way to more memory.
        memory: GiB a core.
        workers: tasks at once; None for as many as the cluster takes.
    """

    cpus: int = 1
    memory: int = 2
    workers: int | None = None

    def __post_init__(self) -> None:
        for name in ("cpus", "memory", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} {value}: it must be at least 1")


class _ClusterExecutor(PipelineExecutor):
    """What the tasks of a stage need on any cluster."""

    pipeline: list[PipelineStep]

    def _begin(self, log: Path) -> None:
        self._log = log.absolute()
        # Paths that the user gave may be relative: they are also names in the result.
        self._directory = Path.cwd()

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> Any:
        os.chdir(self._directory)
        # A job may run several tasks: every task has steps of its own, they count.
        steps, self.pipeline = self.pipeline, deepcopy(self.pipeline)
        try:
            return super()._run_for_rank(rank, local_rank, node_rank)
        except Exception as error:
            text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            with atomic_file(self._log / ERRORS / f"{rank:05}.txt") as temporary:
                temporary.write_text(text, encoding="utf-8")
            raise
        finally:
            self.pipeline = steps

    def _is_done(self) -> bool:
        """Whether all tasks are done, or one says why not."""
        return not self.get_incomplete_ranks() or any((self._log / ERRORS).glob("*.txt"))

    def _settle(self) -> None:
        """Wait, after the tasks have ended, for what they wrote to be seen here."""
        until = time.monotonic() + SETTLE
        while not self._is_done() and time.monotonic() < until:
            time.sleep(0.25)


# --- Ray -------------------------------------------------------------------------------------------------


@contextmanager
def on_ray(address: str | None, share: Share) -> Iterator[MakeExecutor]:
    """Tasks on the nodes of a Ray cluster that is running.

    Args:
        address: of the cluster, as `ray.init` takes it; None for $RAY_ADDRESS, or the one on this machine.
        share: what a task gets.

    Raises:
        UserError: Ray is not installed, there is no cluster, or no node of it has what a task needs.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise MissingExtraError("--executor ray", "ray") from None
    address = address or os.environ.get("RAY_ADDRESS") or "auto"
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"no Ray cluster at {address!r} ({reason}): start one with `ray start --head`, or give --ray-address"
        ) from None
    logger.disable("datatrove")
    theirs, datatrove_ray.RayTaskManager = datatrove_ray.RayTaskManager, _TaskManager
    try:
        _check_nodes(share)
        workers = share.workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // share.cpus)
        are_checked = False

        def make(pipeline: list[PipelineStep], tasks: int, log: Path) -> PipelineExecutor:
            nonlocal are_checked
            if not are_checked:
                _check_shared(log)
                are_checked = True
            return RayExecutor(pipeline, tasks, log, workers, share)

        yield make
    finally:
        datatrove_ray.RayTaskManager = theirs
        logger.enable("datatrove")
        ray.shutdown()


class RayExecutor(_ClusterExecutor, RayPipelineExecutor):
    """Runs a stage's tasks as actors; those of a node that is lost run again on the others."""

    def __init__(
        self, pipeline: list[PipelineStep], tasks: int, log: Path, workers: int, share: Share
    ) -> None:
        super().__init__(
            pipeline,
            tasks,
            workers,
            logging_dir=str(log.absolute()),
            cpus_per_task=share.cpus,
            mem_per_cpu_gb=share.memory,
        )
        self._begin(log)

    def run(self) -> None:
        for _ in range(_TRIES):
            super().run()
            self._settle()
            if self._is_done():
                return

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> Any:
        _end_with_parent()
        return super()._run_for_rank(rank, local_rank, node_rank)


def _end_with_parent() -> None:
    """End this process when the actor that forked it for a task is gone: the task runs elsewhere by then."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _TaskManager(datatrove_ray.RayTaskManager):
    """datatrove's, which waits for ever for a task whose node is lost before the task has begun."""

    def submit_task(self, executor_ref: Any, ranks_to_submit: list[int], remote_options: Any) -> Future[Any]:
        submitted = super().submit_task(executor_ref, ranks_to_submit, remote_options)

        def hand_on(thread: Future[Any]) -> None:
            if not thread.cancelled() and (error := thread.exception()) and not submitted.done():
                submitted.set_exception(error)

        self.pg_futures[-1].add_done_callback(hand_on)
        return submitted


def _check_nodes(share: Share) -> None:
    import ray

    memory = share.cpus * share.memory
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= share.cpus and node.get("memory", 0) >= memory << 30 for node in nodes):
        offers = "; ".join(
            sorted(
                {f"{node.get('CPU', 0):g} cores, {node.get('memory', 0) / 2**30:.1f} GiB" for node in nodes}
            )
        )
        raise UserError(
            f"no node of the Ray cluster has --cpus {share.cpus} with --memory {share.memory} GiB each: "
            f"they have {offers}"
        )


def _check_shared(log: Path) -> None:
    """Ask every node whether it sees what was written here.

    Raises:
        UserError: one does not; names it.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    token, text = log.absolute() / "shared.txt", f"{platform.node()} {os.getpid()}"
    with atomic_file(token) as temporary:
        temporary.write_text(text)
    ask = ray.remote(num_cpus=0, max_retries=0)(_read_text)
    asked = []
    for node in filter(itemgetter("Alive"), ray.nodes()):
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        answer = ask.options(scheduling_strategy=strategy).remote(token)
        asked.append((node, answer))
    until = time.monotonic() + PATIENCE
    for node, answer in asked:
        name = f"the node {node['NodeManagerAddress']}"
        try:
            seen = ray.get(answer, timeout=max(0.0, until - time.monotonic()))
        except GetTimeoutError:
            raise UserError(f"{name} of the Ray cluster does not answer within {PATIENCE:.0f} s") from None
        except RayError as error:
            if not _is_alive(node["NodeID"]):
                continue
            reason = str(error).strip().splitlines()[-1]
            raise UserError(
                f"{name} of the Ray cluster cannot run unmask ({reason}): {_NODES_MUST_SEE}"
            ) from None
        if seen != text:
            raise UserError(f"{name} of the Ray cluster does not see {token}: {_NODES_MUST_SEE}")


def _is_alive(node_id: str) -> bool:
    import ray

    return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())


def _read_text(file: Path) -> str | None:
    with suppress(OSError):
        return file.read_text()
    return None


# --- Slurm -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SlurmSettings:
    """How jobs are given to Slurm.

    Attributes:
        partition: where they run.
        time: limit of a job, as `sbatch --time` takes it.
        sbatch: further options of sbatch, without their dashes: {"account": "a", "qos": "high"}.
    """

    partition: str
    time: str = "24:00:00"
    sbatch: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def on_slurm(settings: SlurmSettings, share: Share) -> Iterator[MakeExecutor]:
    """Tasks in an array of Slurm jobs for each stage.

    Raises:
        UserError: Slurm's commands are not on the path, or this is a job of an array itself.
    """
    for command in ("sbatch", "squeue", "scancel"):
        if shutil.which(command) is None:
            raise UserError(
                f"--executor slurm: the command {command} is not on the path; run this on a login node of Slurm's"
            )
    if "SLURM_ARRAY_TASK_ID" in os.environ:
        raise UserError("--executor slurm: this is a job of an array itself; run it on a login node")
    logger.disable("datatrove")
    theirs, datatrove_slurm.launch_slurm_job = datatrove_slurm.launch_slurm_job, _submit
    try:
        yield lambda pipeline, tasks, log: SlurmExecutor(pipeline, tasks, log, settings, share)
    finally:
        datatrove_slurm.launch_slurm_job = theirs
        logger.enable("datatrove")


def _submit(script: str, _retriever: Any, *options: str) -> str:
    """Give a script to Slurm, in the place of datatrove's function, which keeps no reason of sbatch's.

    Returns:
        the job's number.

    Raises:
        UserError: sbatch refused it; with its words.
    """
    answer = subprocess.run(
        ["sbatch", "--parsable", *options], input=script, capture_output=True, text=True, check=False
    )
    if answer.returncode:
        reason = answer.stderr.strip() or f"exit code {answer.returncode}"
        raise UserError(
            f"sbatch refused the job ({reason}): --partition, --time, --sbatch, --cpus and --memory set it"
        )
    # "NUMBER", or "NUMBER;CLUSTER".
    return answer.stdout.strip().split(";")[0]


class SlurmExecutor(_ClusterExecutor, SlurmPipelineExecutor):
    """Runs a stage's tasks as an array of jobs, and waits for it."""

    def __init__(
        self, pipeline: list[PipelineStep], tasks: int, log: Path, settings: SlurmSettings, share: Share
    ) -> None:
        super().__init__(
            pipeline,
            tasks,
            settings.time,
            settings.partition,
            cpus_per_task=share.cpus,
            mem_per_cpu_gb=share.memory,
            workers=share.workers or -1,
            job_name=f"unmask-{log.parent.name}",
            # Their default names one that a cluster need not have.
            qos="",
            # Jobs have the environment of this process, in which this Python need not be the first.
            env_command=f"export PATH={str(Path(sys.executable).parent)!r}:$PATH",
            sbatch_args=dict(settings.sbatch),
            max_array_size=_MAX_ARRAY,
            tasks_per_job=-(-tasks // _MAX_ARRAY),
            logging_dir=str(log.absolute()),
            with_srun=False,
        )
        self._begin(log)

    def run(self) -> None:
        if "SLURM_ARRAY_TASK_ID" in os.environ:
            super().run()
            return
        submitted = self._log / "slurm_job"
        if submitted.is_file() and _is_queued(job := submitted.read_text()):
            # Of a run that was killed: its jobs go on without it.
            self._follow(job)
        if self._is_done():
            return
        super().run()
        with atomic_file(submitted) as temporary:
            temporary.write_text(str(self.job_id))
        self._follow(str(self.job_id))
        if not self._is_done():
            raise UserError(
                f"Slurm's job {self.job_id} ended with {len(self.get_incomplete_ranks())} of {self.tasks} tasks not "
                f"done; see {self._log / 'slurm_logs'} (nothing is there: {_NODES_MUST_SEE}). "
                "The same command tries again"
            )

    def launch_merge_stats(self) -> None:
        """No further job for datatrove's statistics: the ledger has ours."""

    def _follow(self, job: str) -> None:
        """Wait until the job is over; end it if a task has failed or this process is interrupted."""
        pause, longest = _LOOK
        try:
            while not self._is_done() and _is_queued(job):
                time.sleep(pause)
                pause = min(longest, 1.5 * pause)
        finally:
            if self.get_incomplete_ranks():
                subprocess.run(["scancel", job], capture_output=True, check=False)
        self._settle()


def _is_queued(job: str) -> bool:
    """Whether jobs of the array wait or run."""
    answer = subprocess.run(
        ["squeue", "--noheader", "--jobs", job, "--format=%T"], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        # A job that is long over is unknown; any other error is one of asking.
        return "Invalid job id" not in answer.stderr
    return bool(answer.stdout.strip())


def sbatch_options(given: list[str]) -> dict[str, str]:
    """NAME=VALUE or NAME, of sbatch's options → their table.

    Raises:
        UserError: an option without a name, or one that datatrove and we set.
    """
    options = {}
    for option in given:
        name, _, value = option.lstrip("-").partition("=")
        if not name or name in ("array", "output", "error"):
            raise UserError(
                f"--sbatch {option!r}: give NAME=VALUE of an option of sbatch; ours are array, output, error"
            )
        options[name] = value
    return options
