"""One fine-tuning by unmask for `benchmarks/finetune.py`: weights at equal distances, and the time until each."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from unmask.tasks.learning import Lesson, learn
from unmask.tasks.models import load_for_training
from unmask.tasks.rows import read_rows
from unmask.tasks.settings import FinetuneSettings
from unmask.tasks.task import load_task


class Points:
    """Takes the place of a judge: writes the weights each time it is asked, with the clock stopped."""

    def __init__(self, learner: Any, out: Path, clock: Callable[[], float]) -> None:
        self.learner, self.out, self.clock = learner, out, clock
        self.begun, self.away = clock(), 0.0
        self.seconds, self.directories = list[float](), list[str]()

    def __call__(self) -> Mapping[str, float]:
        now = self.clock()
        self.seconds.append(now - self.begun - self.away)
        place = self.out / f"point-{len(self.seconds)}"
        self.learner.save_pretrained(place)
        self.directories.append(str(place))
        self.away += self.clock() - now
        # Always the same: the loop keeps the first alone as its best, which costs no time later.
        return {"points": 0.0}

    def baseline(self) -> float:
        return -1.0


def other_settings(system: str) -> dict[str, Any]:
    """Of "unmask learning_rate=1e-2 optimiser=adamw"."""
    found: dict[str, Any] = {}
    for name, value in (word.split("=") for word in system.split() if "=" in word):
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    task, out = load_task(job["task"]), Path(job["out"])
    rows = read_rows(task, "train")
    if job["train_rows"] and len(rows) > job["train_rows"]:
        rows = [rows[number * len(rows) // job["train_rows"]] for number in range(job["train_rows"])]
    device = torch.device(job["device"])
    fresh_weights = job["system"] == "unmask, drawn weights"
    torch.manual_seed(job["seed"])
    learner = load_for_training(
        task, job["initial"], rows, fresh_weights=fresh_weights, device=device, seed=job["seed"]
    )
    source = learner.examples(rows)
    settings = FinetuneSettings(
        epochs=job["epochs"],
        batch_size=job["batch_size"],
        seed=job["seed"],
        evaluate_every=math.ceil(job["steps"] / job["points"]),
        patience=0,
        checkpoint_every=0,
        **other_settings(job["system"]),
    )
    clock = time.process_time if job["clock"] == "processor" else time.perf_counter
    points = Points(learner, out, clock)
    lesson = Lesson(learner, source, len(rows), f"unmask on {task.name}", "points", points)
    outcome = learn(lesson, job["initial"], out, settings, fresh_weights=fresh_weights)
    assert outcome.steps == job["steps"], "both sides make as many steps"
    found = {"seconds": points.seconds, "directories": points.directories}
    (out / "points.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
