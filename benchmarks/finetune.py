"""Fine-tuning: unmask's defaults beside Transformers' Trainer with its own, from the same initial weights.

Both train the same architecture from the same weights, head included, on the same token ids for the same number of
steps with the same batch size; everything else is each one's default. A third system is the Trainer with unmask's
optimiser settings as far as it has them (learning rate, schedule, warm-up). Weights are taken at equal distances,
the clock stopped meanwhile, and every system's are scored by the same code on the same held-out rows. "To the same
score" is the time until the median of the Trainer's last scores is reached. Each training is a process of its own.

    python benchmarks/finetune.py --electra quickstart/electra/model --t5 quickstart/t5/model --train-rows 1000
    python benchmarks/finetune.py --electra DIR --t5 DIR --seeds 5 --device cuda
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unmask.hub import write_json
from unmask.tasks.baselines import logistic_regression
from unmask.tasks.evaluation import HeldOut
from unmask.tasks.learning import shape_of
from unmask.tasks.models import load_for_prediction, load_for_training
from unmask.tasks.rows import read_rows
from unmask.tasks.settings import FinetuneSettings
from unmask.tasks.task import Task, load_task

PEERS = Path(__file__).resolve().parent / "peers"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "tasks"
OURS, TRAINER, TUNED = "unmask", "Trainer", "Trainer, our rate"
SYSTEMS = (OURS, TRAINER, TUNED)

#: Set → family and the lines of its task file; {data} stands for the folder of all sets.
SETS: Mapping[str, tuple[str, str]] = {
    "trec": (
        "electra",
        'kind = "classification"\nsource = "text"\ntarget = "label"\n'
        'train = "{data}/trec/train.csv.gz"\ntest = "{data}/trec/test.csv.gz"\nmax_source_length = 64',
    ),
    "stsb": (
        "electra",
        'kind = "regression"\nsource = ["sentence1", "sentence2"]\ntarget = "score"\n'
        'train = "{data}/glue_stsb/train.csv.gz"\ntest = "{data}/glue_stsb/dev.csv.gz"',
    ),
    "wnut17": (
        "electra",
        'kind = "tagging"\nsource = "tokens"\ntarget = "tags"\n'
        'train = "{data}/wnut17/train.csv.gz"\ntest = "{data}/wnut17/dev.csv.gz"',
    ),
    "multi30k": (
        "t5",
        'kind = "text-to-text"\nsource = "en"\ntarget = "de"\nmax_target_length = 64\n'
        'train = "{data}/multi30k/en-de.train.csv.gz"\n'
        'test = "{data}/multi30k/en-de.test_2016_flickr.csv.gz"',
    ),
    "e2e": (
        "t5",
        'kind = "text-to-text"\nsource = "meaning"\ntarget = "text"\nmax_target_length = 96\n'
        'train = "{data}/e2e/train.csv.gz"\ntest = "{data}/e2e/test.csv.gz"',
    ),
}


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
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    for name in options.sets:
        family, lines = SETS[name]
        base = options.electra if family == "electra" else options.t5
        if base is None:
            print(f"{name}: left out, no --{family}")
            continue
        path = work / f"{name}.toml"
        path.write_text(f'name = "{name}"\n' + lines.format(data=options.data) + "\n")
        results[name] = measure(options, name, load_task(path), path, base)
        write_json(work / "results.json", results)
    for name, result in results.items():
        show(name, result)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--data", type=Path, default=DATA, help="folder of all sets")
    parser.add_argument(
        "--electra", type=Path, help="initial weights: a model directory (of a pair, its discriminator)"
    )
    parser.add_argument("--t5", type=Path, help="initial weights: a model directory")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--points", type=int, default=6, help="how often weights are scored")
    parser.add_argument("--train-rows", type=int, default=0, help="at equal distances; 0: all")
    parser.add_argument("--rows", type=int, default=0, help="held-out rows, the same way")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--work", type=Path, default=Path("finetune-benchmark"))
    return parser.parse_args()


def spaced(rows: Sequence[Any], most: int) -> Sequence[Any]:
    if not most or len(rows) <= most:
        return rows
    return [rows[number * len(rows) // most] for number in range(most)]


def measure(options: argparse.Namespace, name: str, task: Task, path: Path, base: Path) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    held_out = HeldOut.read(task, "test")
    held_out = HeldOut(
        task, spaced(held_out.training, options.train_rows), spaced(held_out.rows, options.rows)
    )
    curves: dict[str, list[Curve]] = {system: [] for system in options.systems}
    for seed in range(options.seeds):
        place = options.work / name / f"seed-{seed}"
        job = prepare(options, task, path, base, place, seed)
        for system in options.systems:
            run = place / system.replace(" ", "-").replace(",", "")
            if not (run / "curve.json").is_file():
                train(job | {"system": system, "out": str(run)}, run, options)
                points = json.loads((run / "points.json").read_text())
                scores = [
                    held_out.score(
                        [
                            one.text
                            for one in load_for_prediction(task, point, device=device).predict(held_out.rows)
                        ]
                    ).scores[task.metrics[0]]
                    for point in points["directories"]
                ]
                write_json(run / "curve.json", {"seconds": points["seconds"], "scores": scores})
            curve = json.loads((run / "curve.json").read_text())
            curves[system].append(Curve(curve["seconds"], curve["scores"]))
            print(
                f"{name}, seed {seed}, {system}: {curve['scores'][-1]:.4g} after {curve['seconds'][-1]:.1f} s",
                flush=True,
            )
    return {
        "metric": task.metrics[0],
        "steps": job["steps"],
        "rows": len(held_out.rows),
        "device": device_name(device),
        "baselines": baselines(held_out),
        "systems": {system: [vars(curve) for curve in some] for system, some in curves.items()},
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
        learner.save_pretrained(initial)
    source = learner.examples(rows)
    examples = [example(source.fetch(np.array([number]))) for number in range(len(source))]
    (place / "examples.json").write_text(json.dumps(examples))
    steps = max(1, round(options.epochs * len(source) / options.batch_size))
    family, width = shape_of(str(initial))
    full = FinetuneSettings(seed=seed).with_defaults(family, width, len(rows))
    return {
        "task": str(path),
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
        "ours": {
            "learning_rate": full.learning_rate,
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
    return found | {"labels": batch["labels"][0].item()}


def train(job: dict[str, Any], run: Path, options: argparse.Namespace) -> None:
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / "job.json", job)
    script = PEERS / ("finetune_ours.py" if job["system"] == OURS else "finetune_hf.py")
    subprocess.run([sys.executable, str(script), str(run / "job.json")], check=True)


def baselines(held_out: HeldOut) -> dict[str, float]:
    metric = held_out.task.metrics[0]
    scores = {name: float(one.scores[metric]) for name, one in held_out.baselines().items()}
    if held_out.task.kind == "classification":
        answers = logistic_regression(
            [" ".join(row.sources) for row in held_out.training],
            [row.target for row in held_out.training],
            [" ".join(row.sources) for row in held_out.rows],
        )
        scores["TF-IDF and logistic regression"] = float(held_out.score(answers).scores[metric])
    return scores


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def show(name: str, result: Mapping[str, Any]) -> None:
    print(
        f"\n{name}: {result['metric']}, {result['steps']} steps, {result['rows']} held-out rows, {result['device']}"
    )
    for baseline, score in result["baselines"].items():
        print(f"  {baseline}: {score:.4g}")
    curves = {system: [Curve(**one) for one in some] for system, some in result["systems"].items()}
    target = statistics.median(one.scores[-1] for one in curves[TRAINER]) if TRAINER in curves else None
    for system, some in curves.items():
        line = f"  {system}: {spread([one.scores[-1] for one in some])}, {spread([one.seconds[-1] for one in some])} s"
        if target is not None:
            times = [one.seconds_to(target) for one in some]
            reached = [time for time in times if time is not None]
            if len(reached) == len(times):
                line += f", to the Trainer's {target:.4g}: {spread(reached)} s"
            else:
                line += f", to the Trainer's {target:.4g}: {len(reached)} of {len(times)} seeds"
        print(line)


if __name__ == "__main__":
    main()
