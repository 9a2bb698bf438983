"""The same model on the same data for the same time: unmask's pre-training beside a plain Transformers loop.

    unmask tokenizer train corpus/*.jsonl.gz --kind unigram --vocab-size 8000 --out tokenizer
    unmask pack corpus/*.jsonl.gz --tokenizer tokenizer --out packed
    python benchmarks/against_transformers.py --recipe t5-laptop --data packed --seconds 3600 --out against-t5

Both begin with the same weights and read the same batches in the same order with the same optimiser, peak rate, shape
of the schedule and clipping, in bfloat16 (autocast over float32 weights). The peer is a Transformers model in a plain
PyTorch loop: batches padded to their longest example; ELECTRA's halves joined as electra_pytorch does. Each side has a
process of its own, one after the other.

The clock runs while a side trains; the first steps, in which kernels are chosen and compiled, and the writing of
weights are outside of it. unmask goes first: its steps are reckoned beforehand from some that are timed, and the time
that they then take, which the load of the machine may change, is the peer's budget to the second. The peer's learning
rate follows the clock and ends with it. On a machine with other work, `--clock processor --threads 1` counts the
processor's seconds, of all threads of a side, in place of the wall's.

Weights that each side wrote on its way are judged afterwards by Transformers in float32 on held-out text, alike for
both: T5's cross-entropy a target token; ELECTRA's cross-entropy a drawn token + 50 · binary cross-entropy a token, in
which each discriminator judges what its own generator samples. `crossed` lists the discriminators' loss on each
other's samples too.

Writes OUT/against.json, .html and .svg. Stopped, the same command goes on behind the last side that is done.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

SIDES = {"unmask": "pretrain_ours", "Transformers": "pretrain_hf"}
HERE = Path(__file__).parent


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recipe", required=True, help="its steps and warm-up count as shares of the time")
    parser.add_argument("--data", required=True, help="what `unmask pack` made")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--points", type=int, default=10, help="how often each side writes its weights")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--held-out", type=int, help="how many held-out batches are judged; default: all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall")
    parser.add_argument("--compile-peer", action="store_true", help="torch.compile the peer's models")
    return parser.parse_args()


def run(module: str, job: Path, threads: int) -> dict[str, Any]:
    """A peer's module in a process of its own; what it wrote, now or before."""
    result = job.with_suffix(f".{module}.json")
    if not result.exists():
        shutil.rmtree(job.parent / "weights" / module, ignore_errors=True)
        subprocess.run(
            [sys.executable, str(HERE / "peers" / f"{module}.py"), str(job)],
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )
    written: dict[str, Any] = json.loads(result.read_text())
    return written


def reached(curve: list[dict[str, float]], loss: float) -> float | None:
    """Seconds until a curve is at a loss, by straight lines between its points."""
    for before, after in itertools.pairwise(curve):
        if after["loss"] <= loss:
            share = (before["loss"] - loss) / (before["loss"] - after["loss"])
            return before["seconds"] + share * (after["seconds"] - before["seconds"])
    return None


def draw(report: dict[str, Any], out: Path) -> None:
    """The page and the figure."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    from unmask.report import Column, Curves, KeyFacts, Page, Series, Table, write_page

    title = f"{report['recipe']}: held-out loss in the same time, {report['device']}"
    names = [name for name in report["curves"][next(iter(SIDES))][0] if name != "seconds"]
    rows = [
        [side, facts["steps"], facts["tokens"], facts["seconds"], facts["tokens"] / facts["seconds"]]
        + [report["curves"][side][-1][name] for name in names]
        for side, facts in report["sides"].items()
    ]
    columns: list[Column | str] = ["", "steps", "tokens", Column("seconds", 1), Column("tokens/s", 0)]
    columns += [Column(name.replace("_", " "), 4, numeric=True) for name in names]
    curves = [
        Curves(
            f"Held-out {name.replace('_', ' ')}",
            [
                Series(side, [point["seconds"] for point in curve[1:]], [point[name] for point in curve[1:]])
                for side, curve in report["curves"].items()
            ],
            "seconds of training",
            name.replace("_", " "),
        )
        for name in names
    ]
    facts = KeyFacts([(name, str(value)) for name, value in report["facts"].items()])
    write_page(out / "against.html", Page(title, [facts, Table("At the end", columns, rows), *curves]))
    matplotlib.rcParams.update({"svg.hashsalt": "unmask", "svg.fonttype": "none"})
    figure, axes = pyplot.subplots(figsize=(7.2, 3.8), layout="constrained")
    for line in curves[0].series:
        axes.plot(line.x, line.y, marker="o", markersize=3, label=line.name)
    axes.set(xlabel="seconds of training", ylabel="held-out loss", title=title)
    axes.grid(alpha=0.2)
    axes.legend(frameon=False)
    figure.savefig(out / "against.svg", metadata={"Date": None})


def main() -> None:
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    job = options.out / "job.json"
    settings = {
        name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()
    }
    if job.exists() and json.loads(job.read_text()) != settings:
        sys.exit(f"{options.out} holds a comparison with other settings: give another --out, or remove it")
    job.write_text(json.dumps(settings))
    sides = {side: run(module, job, options.threads) for side, module in SIDES.items()}
    for side, facts in sides.items():
        print(
            f"{side}: {facts['steps']:,} steps, {facts['tokens']:,} tokens in {facts['seconds']:.1f} s",
            flush=True,
        )
    judged = run("pretrain_judge", job, options.threads)
    curves = {side: judged[module] for side, module in SIDES.items()}
    ours, theirs = (curves[side] for side in SIDES)
    facts = sides["unmask"]["facts"] | {
        "budget, seconds": options.seconds,
        "held-out loss": " / ".join(f"{curve[-1]['loss']:.4f}" for curve in (ours, theirs)),
        "seconds of unmask to the peer's last loss": reached(ours, theirs[-1]["loss"]),
    }
    report = {
        "recipe": options.recipe,
        "device": sides["unmask"]["device"],
        "facts": facts,
        "sides": sides,
        "curves": curves,
        "crossed": judged["crossed"],
    }
    (options.out / "against.json").write_text(json.dumps(report, indent=1))
    draw(report, options.out)
    for name, value in facts.items():
        print(f"{name}: {value}")
    for row in judged["crossed"]:
        print(row)


if __name__ == "__main__":
    main()
