"""How fast does a step of pre-training go, and how much memory does it hold? unmask beside Transformers, in one run.

    python benchmarks/train.py --rounds 5 --json train.json

T5 v1.1 small, 4 sequences of 512 + 114 tokens; ELECTRA small with its generator, 32 of 128 with 19 drawn in each.
Random weights, the same for all; AdamW, gradients clipped; bfloat16 is autocast over float32 weights. Dropout as the
models were pre-trained: 0 and 0.1. Transformers' models run in a plain PyTorch loop, as they are and, where there is
a C++ compiler, compiled; unmask's also with `--compile` and, "recomputed", with `--checkpoint-activations`. Each engine
lives in a process of its own and they take turns in every round.

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
ENGINES = {
    "transformers float32": ("train_hf", "float32", "transformers"),
    "transformers bfloat16": ("train_hf", "bfloat16", "transformers"),
    "transformers bfloat16 compiled": ("train_hf", "bfloat16 compiled", "transformers"),
    "unmask float32": ("train_ours", "float32", "unmask"),
    "unmask bfloat16": ("train_ours", "bfloat16", "unmask"),
    "unmask bfloat16 compiled": ("train_ours", "bfloat16 compiled", "unmask"),
    "unmask bfloat16 recomputed": ("train_ours", "bfloat16 recomputed", "unmask"),
}
TASKS: dict[str, dict[str, int]] = {
    "t5": {"rows": 4, "source": 512, "target": 114, "vocabulary": 32128},
    "electra": {"rows": 32, "source": 128, "drawn": 19, "vocabulary": 30522},
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--families", default=",".join(TASKS))
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def make_model(family: str, directory: Path) -> None:
    import torch

    from unmask.electra.config import SHAPES, generator_config
    from unmask.electra.pair import ElectraPair
    from unmask.t5.config import T5Config
    from unmask.t5.model import T5ForConditionalGeneration

    torch.manual_seed(0)
    if family == "electra":
        shape = SHAPES["small"]
        config = replace(shape.discriminator, vocab_size=TASKS[family]["vocabulary"])
        ElectraPair.fresh(generator_config(config, shape.generator_width), config).save_pretrained(directory)
        return
    config = T5Config(
        vocab_size=TASKS[family]["vocabulary"],
        d_model=512,
        d_kv=64,
        d_ff=1024,
        num_layers=8,
        num_heads=6,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    T5ForConditionalGeneration(config).save_pretrained(directory)


def operations(family: str, directory: Path) -> int:
    """Floating-point operations of the matrix products of one step, forward and backward."""
    import sys

    from torch.utils.flop_counter import FlopCounterMode

    sys.path.insert(0, str(Path(__file__).parent / "peers"))
    from train_ours import load
    from worker import inputs

    run = load(directory, "float32", os.cpu_count() or 1)
    with FlopCounterMode(display=False) as counter:
        run(*inputs(TASKS[family] | {"checking": 0}, TASKS[family]["vocabulary"]))
    return counter.get_total_flops()


def matrix_peak(kind: str) -> float:
    """Operations a second of the fastest of some square products of that type."""
    import torch

    best = 0.0
    for size in (1024, 2048, 3072):
        a = torch.randn(size, size).to(getattr(torch, kind))
        for _ in range(4):
            start = time.perf_counter()
            a @ a
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
        kind = "float32" if engine.endswith("float32") else "bfloat16"
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
        for peer in ("transformers bfloat16", "transformers bfloat16 compiled", "unmask bfloat16"):
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
    engines = [name for name in options.engines.split(",") if find_spec(ENGINES[name][2]) is not None]
    for name in set(options.engines.split(",")) - set(engines):
        print(f"{name} is not installed: left out")
    peaks = {kind: matrix_peak(kind) for kind in ("float32", "bfloat16")}
    shown = ", ".join(f"{kind} {peak / 1e9:,.0f} GFLOP/s" for kind, peak in peaks.items())
    print(f"matrix products: {shown}, {options.threads} threads, load {os.getloadavg()[0]:.1f}")
    report: dict[str, Any] = {"peaks": peaks}
    for family in options.families.split(","):
        with tempfile.TemporaryDirectory() as folder:
            make_model(family, Path(folder))
            workers = {name: Worker(*ENGINES[name][:2], Path(folder), options.threads) for name in engines}
            results = measure(workers, options.rounds, TASKS[family])
            for worker in workers.values():
                worker.close()
            summary = summarise(TASKS[family], results, operations(family, Path(folder)), peaks)
        print(f"  {family}: {TASKS[family]}")
        show(summary)
        report[family] = {"task": TASKS[family], **summary}
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
