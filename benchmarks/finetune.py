"""Fine-tuning: unmask's defaults beside Transformers' Trainer with its own, from the same initial weights.

Both train the same architecture from the same weights, head included, on the same token ids for the same number of
steps with the same batch size; everything else is each one's default. A third system is the Trainer with unmask's
learning rate, schedule and warm-up, or what is likest to them, a fourth unmask from drawn weights; `--also` adds unmask
with other settings. Weights are taken at equal distances, the clock stopped meanwhile, and every
system's are scored by the same code on the same held-out rows. "To the same score" is the time until the median of
the Trainer's last scores is reached. Each training is a process of its own; seeds are the outer loop, and the same
command goes on where it was stopped.

    python benchmarks/finetune.py --electra quickstart/electra/model --t5 quickstart/t5/model --train-rows 1000
    python benchmarks/finetune.py --electra DIR --t5 DIR --seeds 5 --device cuda
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unmask.hub import atomic_directory, write_json
from unmask.tasks.evaluation import HeldOut
from unmask.tasks.learning import shape_of
from unmask.tasks.models import load_for_prediction, load_for_training
from unmask.tasks.rows import read_rows
from unmask.tasks.settings import FinetuneSettings
from unmask.tasks.task import Task, load_task

PEERS = Path(__file__).resolve().parent / "peers"
sys.path.append(str(PEERS))
from finetune_baselines import baselines  # noqa: E402
from finetune_sets import SETS, TABLE, task_file  # noqa: E402

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "tasks"
OURS, TRAINER, TUNED, FRESH = "unmask", "Trainer", "Trainer, tuned", "unmask, drawn weights"
SYSTEMS = (OURS, TRAINER, TUNED, FRESH)


@dataclass(frozen=True)
class Curve:
    """One training: seconds and score at each point."""

    seconds: Sequence[float]
    scores: Sequence[float]

    def seconds_to(self, score: float) -> float | None:
        """Until a score is reached; None: it never is."""
        reached = (time for time, value in zip(self.seconds, self.scores, strict=True) if value >= score)
        return next(reached, None)


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    bases = {"electra": options.electra, "t5": options.t5}
    left_out = [name for name in options.sets if bases[SETS[name].family] is None]
    for name in left_out:
        print(f"{name}: left out, no --{SETS[name].family}")
    benches = [
        Bench(options, name, bases[SETS[name].family]) for name in options.sets if name not in left_out
    ]
    for seed in range(options.seeds):
        for bench in benches:
            bench.train_all(seed)
            write_json(
                options.work / "results.json", {one.name: one.results() for one in benches if one.curves}
            )
    for bench in benches:
        show(bench.name, bench.results())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(TABLE))
    parser.add_argument("--data", type=Path, default=DATA, help="folder of all sets")
    parser.add_argument(
        "--electra", type=Path, help="initial weights: a model directory (of a pair, its discriminator)"
    )
    parser.add_argument("--t5", type=Path, help="initial weights: a model directory")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        help='unmask with other settings: "learning_rate=1e-2 layer_decay=1"',
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--points", type=int, default=6, help="how often weights are scored")
    parser.add_argument("--train-rows", type=int, default=0, help="at equal distances; 0: all")
    parser.add_argument("--rows", type=int, default=0, help="held-out rows, the same way")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--clock",
        choices=("wall", "processor"),
        default="wall",
        help="processor: what a training takes of the processor, which other work on the machine does not stretch",
    )
    parser.add_argument("--work", type=Path, default=Path("finetune-benchmark"))
    return parser.parse_args()


def spaced(rows: Sequence[Any], most: int) -> Sequence[Any]:
    if not most or len(rows) <= most:
        return rows
    return [rows[number * len(rows) // most] for number in range(most)]


class Bench:
    """One set: its trainings and their curves."""

    def __init__(self, options: argparse.Namespace, name: str, base: Path) -> None:
        self.options, self.name, self.base = options, name, base
        self.path = task_file(name, options.data, options.work)
        self.task = load_task(self.path)
        held_out = HeldOut.read(self.task, "test")
        self.held_out = HeldOut(
            self.task, spaced(held_out.training, options.train_rows), spaced(held_out.rows, options.rows)
        )
        self.baselines = baselines(self.held_out)
        self.curves: dict[str, list[Curve]] = {}
        self.steps = 0

    def train_all(self, seed: int) -> None:
        place = self.options.work / self.name / f"seed-{seed}"
        job = prepare(self.options, self.task, self.path, self.base, place, seed)
        self.steps = job["steps"]
        for system in [*self.options.systems, *(f"unmask {settings}" for settings in self.options.also)]:
            run = place / "".join(letter if letter.isalnum() else "-" for letter in system)
            told = job | {"system": system, "out": str(run)}
            if system == TRAINER:
                # Its results stay when our defaults change.
                del told["ours"]
            curve = self.curve(told, run)
            self.curves.setdefault(system, []).append(curve)
            print(
                f"{self.name}, seed {seed}, {system}: {curve.scores[-1]:.4g} after {curve.seconds[-1]:.1f} s",
                flush=True,
            )

    def curve(self, job: dict[str, Any], run: Path) -> Curve:
        """A training's curve; trained and scored now, unless the very same was before."""
        done = run / "curve.json"
        if not (done.is_file() and json.loads((run / "job.json").read_text()) == job):
            shutil.rmtree(run, ignore_errors=True)
            run.mkdir(parents=True)
            write_json(run / "job.json", job)
            script = PEERS / ("finetune_hf.py" if job["system"] in (TRAINER, TUNED) else "finetune_ours.py")
            subprocess.run([sys.executable, str(script), str(run / "job.json")], check=True)
            points = json.loads((run / "points.json").read_text())
            scores = [self.score(point) for point in points["directories"]]
            for point in points["directories"]:
                shutil.rmtree(point)
            write_json(done, {"seconds": points["seconds"], "scores": scores})
        return Curve(**json.loads(done.read_text()))

    def score(self, point: str) -> float:
        learner = load_for_prediction(self.task, point, device=torch.device(self.options.device))
        answers = [one.text for one in learner.predict(self.held_out.rows)]
        return float(self.held_out.statistics(answers).total())

    def results(self) -> dict[str, Any]:
        return {
            "metric": self.task.metrics[0],
            "training_rows": len(self.held_out.training),
            "steps": self.steps,
            "rows": len(self.held_out.rows),
            "device": device_name(self.options),
            "clock": self.options.clock,
            "baselines": self.baselines,
            "systems": {system: [vars(curve) for curve in some] for system, some in self.curves.items()},
        }


def prepare(
    options: argparse.Namespace, task: Task, path: Path, base: Path, place: Path, seed: int
) -> dict[str, Any]:
    """The initial model with its head, the token ids of all examples, and what both systems are told."""
    place.mkdir(parents=True, exist_ok=True)
    rows = spaced(read_rows(task, "train"), options.train_rows)
    torch.manual_seed(seed)
    learner = load_for_training(
        task, str(base), rows, fresh_weights=False, device=torch.device("cpu"), seed=seed
    )
    initial = place / "initial"
    if not initial.is_dir():
        with atomic_directory(initial) as temporary:
            learner.save_pretrained(temporary)
    source = learner.examples(rows)
    examples = [example(source.fetch(np.array([number]))) for number in range(len(source))]
    (place / "examples.json").write_text(json.dumps(examples))
    steps = max(1, round(options.epochs * len(source) / options.batch_size))
    family, width = shape_of(str(initial))
    full = FinetuneSettings(seed=seed).with_defaults(family, width, len(rows))
    return {
        "task": str(path),
        "base": str(base.resolve()),
        "initial": str(initial),
        "examples": str(place / "examples.json"),
        "train_rows": options.train_rows,
        "kind": task.kind,
        "family": family,
        "epochs": options.epochs,
        "steps": steps,
        "points": options.points,
        "batch_size": options.batch_size,
        "seed": seed,
        "device": options.device,
        "threads": options.threads,
        "clock": options.clock,
        "ours": {
            "learning_rate": full.learning_rate,
            "layer_decay": full.layer_decay,
            "optimiser": full.optimiser,
            "schedule": full.schedule,
            "warmup_share": full.warmup_share,
        },
    }


def example(batch: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """One example's ids as Transformers' collators take them."""
    found: dict[str, Any] = {"input_ids": batch["inputs"].tolist()}
    if "targets" in batch:
        return found | {"labels": batch["targets"].tolist()}
    found["token_type_ids"] = batch["token_types"].tolist()
    if "token_labels" in batch:
        return found | {"labels": batch["token_labels"].tolist()}
    if batch["labels"].ndim == 2:
        first, last = batch["labels"][0].tolist()
        return found | {"start_positions": first, "end_positions": last}
    return found | {"labels": batch["labels"][0].item()}


def device_name(options: argparse.Namespace) -> str:
    if options.device == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU, {options.threads} threads"


def spread(values: Sequence[float], digits: int) -> str:
    middle, low, high = (
        f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return f"{middle} ({low}–{high})"


def show(name: str, result: Mapping[str, Any]) -> None:
    """The set's table, in Markdown."""
    metric, seconds = result["metric"], "s" if result["clock"] == "wall" else "processor s"
    curves = {system: [Curve(**one) for one in some] for system, some in result["systems"].items()}
    target = statistics.median(one.scores[-1] for one in curves[TRAINER]) if TRAINER in curves else None
    digits = 1 if any(score > 1 for score in result["baselines"].values()) else 3
    print(
        f"\n{name}: {result['training_rows']} rows, {result['steps']} steps, {result['rows']} held-out rows, "
        f"{len(next(iter(curves.values())))} seeds, {result['device']}\n"
    )
    last = "" if target is None else f" {seconds} to {target:.{digits}f} |"
    print(f"| system | {metric} | {seconds} |{last}\n|---|---|---|{last and '---|'}")
    for baseline, score in result["baselines"].items():
        print(f"| {baseline} | {score:.{digits}f} | |{last and ' |'}")
    for system, some in curves.items():
        line = f"| {system} | {spread([one.scores[-1] for one in some], digits)} |"
        line += f" {spread([one.seconds[-1] for one in some], 0)} |"
        if target is not None:
            times = [one.seconds_to(target) for one in some]
            reached = [time for time in times if time is not None]
            if len(reached) == len(times):
                line += f" {spread(reached, 0)} |"
            else:
                line += f" {len(reached)} of {len(times)} seeds |"
        print(line)


if __name__ == "__main__":
    main()
