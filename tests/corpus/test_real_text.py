"""From 75 million characters of real text to shards, killed in the middle of every stage, on one machine and on Ray.

Takes about five minutes on two idle cores: `pytest -m long tests/corpus/test_real_text.py`.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lost_nodes import kill_node

pytest.importorskip("datatrove", reason="needs the extra corpus: pip install 'unmask[corpus]'")

pytestmark = pytest.mark.long

FILES = ("en.eltec", "en.openstax-ccby", "en.factbook")
CLEANING = ["--clean", "c4", "--near-duplicates"]
# A few words that are met, and one that is none: what C4's list does is shown on planted documents.
BAD_WORDS = "damnation\nharlot\nnosuchwordanywhere\n"
VOCABULARY = ["--kind", "unigram", "--vocab-size", "8000", "--sample-bytes", "8000000"]
COMMANDS = ("corpus", "tokenizer", "shards")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    (folder / "bad-words.txt").write_text(BAD_WORDS)
    return folder


def command(name: str, inputs: list[Path], place: Path, run: str) -> list[str]:
    """A command of a run, whose results lie in `place/run`."""
    out = place / run
    arguments: dict[str, list[object]] = {
        "corpus": [*inputs, "--out", out / "corpus", *CLEANING, "--bad-words", place / "bad-words.txt"],
        "tokenizer": ["train", out / "corpus" / "train", "--out", out / "tokenizer", *VOCABULARY],
        "shards": [out / "corpus" / "train", "--tokenizer", out / "tokenizer", "--out", out / "shards"],
    }
    verb = {"shards": "pack"}.get(name, name)
    return [sys.executable, "-c", "from unmask.cli import main; main()", verb, *map(str, arguments[name])]


@pytest.fixture(scope="module")
def inputs(shared_data: Path) -> list[Path]:
    return [shared_data / "corpus" / f"{name}.jsonl.gz" for name in FILES]


@pytest.fixture(scope="module")
def whole(inputs: list[Path], place: Path) -> dict[str, float]:
    """A run that nobody disturbs: seconds of each command."""
    seconds = {}
    for name in COMMANDS:
        start = time.monotonic()
        run_to_end(command(name, inputs, place, "whole"))
        seconds[name] = time.monotonic() - start
    return seconds


def run_to_end(arguments: list[str]) -> None:
    done = subprocess.run(arguments, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


# --- kill -9 ---------------------------------------------------------------------------------------------


def stages(work: Path) -> list[Path]:
    """Those that have begun."""
    return sorted(path.parent for path in work.glob("[0-9][0-9]-*/log"))


def is_in_the_middle(stage: Path) -> bool:
    """Of a task a part, or a bucket, one is done; of a single task, something lies there."""
    if stage.name[3:].startswith(("before", "write", "near-duplicates-pairs")):
        return any((stage / "log" / "completions").glob("*"))
    return any(path.name != "log" for path in stage.iterdir())


def next_middle(work: Path) -> Callable[[], bool]:
    """Whether a run is in the middle of a stage, once for each stage."""
    seen: set[Path] = set()

    def moment() -> bool:
        new = [stage for stage in stages(work) if stage not in seen]
        if not new or not is_in_the_middle(new[-1]):
            return False
        seen.update(new)
        return True

    return moment


def kill_at(arguments: list[str], moment: Callable[[], bool]) -> bool:
    """Start a command and kill it at a moment; False where it ended before."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None and not moment():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    _, error = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), error.decode()
    return process.returncode != 0


def test_killed_in_the_middle_of_every_stage(
    inputs: list[Path], place: Path, whole: dict[str, float]
) -> None:
    run = place / "killed"
    kills = dict.fromkeys(COMMANDS, 0)
    work, killed = run / "corpus" / ".work", set()
    middle = next_middle(work)
    while kill_at(command("corpus", inputs, place, "killed"), middle):
        killed.add(stages(work)[-1].name)
    kills["corpus"] = len(killed)
    middle_of_training = time.monotonic() + whole["tokenizer"] / 3
    kills["tokenizer"] += kill_at(
        command("tokenizer", inputs, place, "killed"), lambda: time.monotonic() > middle_of_training
    )
    if not (run / "tokenizer").exists():
        run_to_end(command("tokenizer", inputs, place, "killed"))
    partial = run / "shards.partial"
    for moment in (
        lambda: len(list(partial.glob("parts/*.json"))) >= 4,
        lambda: len(list(partial.glob("parts/*.json"))) >= 10,
        (partial / "shards").exists,
    ):
        kills["shards"] += kill_at(command("shards", inputs, place, "killed"), moment)
    if not (run / "shards").exists() or partial.exists():
        run_to_end(command("shards", inputs, place, "killed"))

    # Reading, four stages of a task a part and one of a task a bucket; single tasks that compare are soon over.
    assert kills["corpus"] >= 6, killed
    assert kills["tokenizer"] == 1
    assert kills["shards"] >= 2, kills
    for name in COMMANDS:
        assert contents(run / name) == contents(place / "whole" / name), name


# --- a cluster -------------------------------------------------------------------------------------------


def test_ray_with_a_node_that_is_killed_gives_the_same_documents(
    inputs: list[Path], place: Path, whole: dict[str, float]
) -> None:
    pytest.importorskip("ray", reason="needs the extra ray: pip install 'unmask[ray]'")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    killed_at = []
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, memory=4 << 30, object_store_memory=80 << 20)
        doomed = cluster.list_all_nodes()[-1]
        work = place / "ray" / "corpus" / ".work"

        def kill() -> None:
            while not (working := [stage for stage in stages(work) if stage.name.startswith("03-")]):
                time.sleep(0.05)
            while not is_in_the_middle(working[0]):
                time.sleep(0.05)
            kill_node(doomed)
            killed_at.append(len(list((working[0] / "log" / "completions").glob("*"))))

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        flags = ["--executor", "ray", "--ray-address", cluster.address]
        run_to_end([*command("corpus", inputs, place, "ray"), *flags])
        killer.join(10)
        assert killed_at, "the node was lost while stage 03 ran"
        assert sum(node["Alive"] for node in cluster_nodes(cluster)) == 2, "the head and one node are left"
    finally:
        cluster.shutdown()
    assert contents(place / "ray" / "corpus") == contents(place / "whole" / "corpus")


def cluster_nodes(cluster: Any) -> list[dict[str, Any]]:
    import ray

    ray.init(address=cluster.address, log_to_driver=False)
    try:
        return list(ray.nodes())
    finally:
        ray.shutdown()
