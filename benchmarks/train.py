"""How fast does a step of pre-training go, and how much memory does it hold? unmask beside Transformers, in one run.

    python benchmarks/train.py --rounds 5 --json train.json
    python benchmarks/train.py --device cuda --peer nanoT5=DIR --peer electra_pytorch=DIR

T5 v1.1 small, 4 sequences of 512 + 114 tokens; ELECTRA small with its generator, 32 of 128 with 19 drawn in each.
Random weights, the same for all; AdamW, gradients clipped; bfloat16 is autocast over float32 weights. Dropout as the
models were pre-trained: 0 and 0.1. Transformers' models run in a plain PyTorch loop, as they are and, where there is
a C++ compiler, compiled; unmask's also with `--compile` and, "recomputed", with `--checkpoint-activations`. Each engine
lives in a process of its own and they take turns in every round.

With `--device cuda` the models are the base ones too, and beside them run nanoT5's and electra_pytorch's models, each
from the checkout that `--peer` names, with the same loop around them; that has not been run on a GPU so far.

Numbers are medians of tokens per second (T5: inputs and targets; ELECTRA: the batch's tokens, once). `peak` is the
share of the fastest matrix product of that type measured in the same run, with the operations of unmask's step.
`activations` is what a step holds at its peak beyond weights, gradients and optimiser. `losses` are those of the first
weights without dropout, of ELECTRA's halves apart.

Needs the peer: pip install transformers. What is absent is left out and named.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engines import Worker

#: Engine → (module in peers/, its precision argument, package).
ENGINES: dict[str, tuple[str, str, str]] = {
    "transformers float32": ("train_hf", "float32", "transformers"),
    "transformers bfloat16": ("train_hf", "bfloat16", "transformers"),
    "transformers bfloat16 compiled": ("train_hf", "bfloat16 compiled", "transformers"),
    "unmask float32": ("train_ours", "float32", "unmask"),
    "unmask bfloat16": ("train_ours", "bfloat16", "unmask"),
    "unmask bfloat16 compiled": ("train_ours", "bfloat16 compiled", "unmask"),
    "unmask bfloat16 recomputed": ("train_ours", "bfloat16 recomputed", "unmask"),
}
#: Those on no registry, on a GPU alone: family → the engine, and where it finds its checkout.
PEERS = {
    "t5": (
        "nanoT5 bfloat16 compiled",
        ("train_nanot5", "bfloat16 compiled", "transformers"),
        "NANOT5_CHECKOUT",
    ),
    "electra": (
        "electra_pytorch bfloat16",
        ("train_electra_pytorch", "bfloat16", "transformers"),
        "ELECTRA_PYTORCH_CHECKOUT",
    ),
}
CHECKOUTS = {engine.split()[0]: variable for engine, _, variable in PEERS.values()}
TASKS: dict[str, dict[str, int]] = {
    "t5": {"rows": 4, "source": 512, "target": 114, "vocabulary": 32128},
    "electra": {"rows": 32, "source": 128, "drawn": 19, "vocabulary": 30522},
    "t5-base": {"rows": 32, "source": 512, "target": 114, "vocabulary": 32128},
    "electra-base": {"rows": 32, "source": 512, "drawn": 77, "vocabulary": 30522},
}
DEFAULTS = {"cpu": "t5,electra", "cuda": "t5-base,electra,electra-base"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=DEFAULTS, default="cpu")
    parser.add_argument("--tasks", help=f"of {', '.join(TASKS)}; default: {DEFAULTS}")
    parser.add_argument("--rows", type=int, help="sequences of a batch; default: each task's own")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=DIR", help=", ".join(CHECKOUTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    for peer in options.peer:
        name, _, directory = peer.partition("=")
        if name not in CHECKOUTS or not Path(directory).is_dir() or options.device != "cuda":
            parser.error(f"--peer {peer}: {' or '.join(CHECKOUTS)}=DIR of a checkout, with --device cuda")
        os.environ[CHECKOUTS[name]] = str(Path(directory).resolve())
    return options


def engines_for(task: str, options: argparse.Namespace) -> dict[str, tuple[str, str, str]]:
    """Those that are wanted and can be had; what is absent is named."""
    wanted = {name: ENGINES[name] for name in options.engines.split(",")}
    if options.device == "cuda":
        name, engine, variable = PEERS[task.split("-")[0]]
        if variable in os.environ:
            wanted[name] = engine
        else:
            print(f"{name}: give --peer {name.split()[0]}=DIR")
    found = {}
    for name, (module, precision, package) in wanted.items():
        if find_spec(package) is None:
            print(f"{name}: {package} is not installed, left out")
        else:
            found[name] = module, f"{precision} {options.device}", package
    return found


def make_model(task: str, directory: Path) -> None:
    import torch

    from unmask.electra.config import SHAPES, generator_config
    from unmask.electra.pair import ElectraPair
    from unmask.t5.config import T5Config
    from unmask.t5.model import T5ForConditionalGeneration

    torch.manual_seed(0)
    base = task.endswith("base")
    if task.startswith("electra"):
        shape = SHAPES["base" if base else "small"]
        config = replace(shape.discriminator, vocab_size=TASKS[task]["vocabulary"])
        ElectraPair.fresh(generator_config(config, shape.generator_width), config).save_pretrained(directory)
        return
    config = T5Config(
        vocab_size=TASKS[task]["vocabulary"],
        d_model=768 if base else 512,
        d_kv=64,
        d_ff=2048 if base else 1024,
        num_layers=12 if base else 8,
        num_heads=12 if base else 6,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    T5ForConditionalGeneration(config).save_pretrained(directory)


def operations(task: str, directory: Path) -> int:
    """Floating-point operations of the matrix products of a step on one row, forward and backward."""
    import sys

    from torch.utils.flop_counter import FlopCounterMode

    sys.path.insert(0, str(Path(__file__).parent / "peers"))
    from train_ours import load
    from worker import inputs

    run = load(directory, "float32", os.cpu_count() or 1)
    with FlopCounterMode(display=False) as counter:
        run(*inputs(TASKS[task] | {"rows": 1, "checking": 0}, TASKS[task]["vocabulary"]))
    return counter.get_total_flops()


def matrix_peak(kind: str, device: str) -> float:
    """Operations a second of the fastest of some square products of that type."""
    import torch

    best = 0.0
    for size in (1024, 2048, 3072) if device == "cpu" else (4096, 8192):
        a = torch.randn(size, size, device=device).to(getattr(torch, kind))
        for _ in range(4):
            if device == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            a @ a
            if device == "cuda":
                torch.cuda.synchronize()
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def measure(workers: dict[str, Worker], rounds: int, task: dict[str, int]) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {}
    for number in range(rounds + 2):  # the first checks, the second warms up
        for engine, worker in workers.items():
            if "error" in results.get(engine, {}):
                continue
            answer = worker.run(**task, checking=int(number == 0))
            time.sleep(0.25)  # let its threads fall asleep
            if "error" in answer:
                results[engine] = {"error": answer["error"]}
            elif number == 0:
                *losses, activations = answer["result"]
                results[engine] = {"seconds": [], "losses": losses, "activations": activations}
            elif number > 1:
                results[engine]["seconds"].append(answer["seconds"])
    return results


def summarise(
    task: dict[str, int], results: dict[str, dict[str, Any]], step_operations: int, peaks: dict[str, float]
) -> dict[str, Any]:
    tokens = task["rows"] * (task["source"] + task.get("target", 0))
    engines: dict[str, Any] = {}
    for engine, result in results.items():
        if "error" in result:
            engines[engine] = result
            continue
        seconds = statistics.median(result["seconds"])
        kind = "float32" if "float32" in engine.split() else "bfloat16"
        engines[engine] = {
            "tokens_per_second": tokens / seconds,
            "share_of_peak": step_operations / seconds / peaks[kind],
            "losses": result["losses"],
            "activation_mib": result["activations"] / 2**20,
        }
    return {"engines": engines, "ratios": ratios(engines)}


def ratios(engines: dict[str, Any]) -> dict[str, float]:
    found = {}
    for own in (name for name in ENGINES if name.startswith("unmask bfloat16")):
        for peer in (
            "transformers bfloat16",
            "transformers bfloat16 compiled",
            *(name for name, *_ in PEERS.values()),
            "unmask bfloat16",
        ):
            ours, theirs = engines.get(own, {}), engines.get(peer, {})
            if own != peer and "tokens_per_second" in ours and "tokens_per_second" in theirs:
                found[f"speed of {own} / {peer}"] = ours["tokens_per_second"] / theirs["tokens_per_second"]
                found[f"activations of {own} / {peer}"] = ours["activation_mib"] / theirs["activation_mib"]
    return found


def show(summary: dict[str, Any]) -> None:
    print(f"    {'':32}{'tokens/s':>10}{'peak':>8}{'activations':>14}   losses")
    for engine, values in summary["engines"].items():
        if "error" in values:
            print(f"    {engine:32} - {values['error']}")
            continue
        losses = ", ".join(f"{loss:.4f}" for loss in values["losses"])
        print(
            f"    {engine:32}{values['tokens_per_second']:10,.0f}{values['share_of_peak']:8.0%}"
            f"{values['activation_mib']:10,.0f} MiB   {losses}"
        )
    for name, ratio in summary["ratios"].items():
        print(f"    {name}: {ratio:.2f}")


def main() -> None:
    options = arguments()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    peaks = {kind: matrix_peak(kind, options.device) for kind in ("float32", "bfloat16")}
    shown = ", ".join(f"{kind} {peak / 1e9:,.0f} GFLOP/s" for kind, peak in peaks.items())
    print(f"matrix products: {shown}, {options.threads} threads, load {os.getloadavg()[0]:.1f}")
    report: dict[str, Any] = {"peaks": peaks}
    for name in (options.tasks or DEFAULTS[options.device]).split(","):
        task = TASKS[name] | ({"rows": options.rows} if options.rows else {})
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            make_model(name, place)
            workers = {
                engine: Worker(module, precision, place, options.threads)
                for engine, (module, precision, _) in engines_for(name, options).items()
            }
            results = measure(workers, options.rounds, task)
            for worker in workers.values():
                worker.close()
            summary = summarise(task, results, task["rows"] * operations(name, place), peaks)
        print(f"  {name}: {task}")
        show(summary)
        report[name] = {"task": task, **summary}
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
