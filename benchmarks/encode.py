"""How fast does ELECTRA classify? unmask beside Transformers and ONNX Runtime, in one run.

    python benchmarks/encode.py --rounds 5 --json encode.json

electra-small with random weights and a classification head; 512 requests of log-normal length (mean 43, longest
285 tokens), answers in the requests' order. unmask is given the lists as they are. Its peers know padded batches,
of 32 here, in the order given or sorted by length (sorting and putting back are timed). Each engine lives in a
process of its own and they take turns in every round. Numbers are medians of sequences per second; `change` is the
largest difference of a logit from Transformers in float32, over the largest logit; `same` the share of requests
with the same likeliest class.

Needs the peers: pip install transformers onnxruntime onnx. What is absent is left out and named.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from engines import Engine, Measured, start, take_turns

ENGINES = {
    "transformers float32 padded": Engine("encode_hf", "float32 padded", "transformers"),
    "transformers float32 sorted": Engine("encode_hf", "float32 sorted", "transformers"),
    "transformers bfloat16 sorted": Engine("encode_hf", "bfloat16 sorted", "transformers"),
    "onnxruntime float32 sorted": Engine("encode_ort", "float32 sorted", "onnxruntime"),
    "onnxruntime int8 padded": Engine("encode_ort", "int8 padded", "onnxruntime"),
    "onnxruntime int8 sorted": Engine("encode_ort", "int8 sorted", "onnxruntime"),
    "unmask float32": Engine("encode_ours", "float32", "unmask"),
    "unmask bfloat16": Engine("encode_ours", "bfloat16", "unmask"),
    "unmask int8": Engine("encode_ours", "int8", "unmask"),
}
REFERENCE = "transformers float32 padded"
#: unmask's precisions that count as low, of which the faster is compared.
LOW = ("unmask bfloat16", "unmask int8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("--mean", type=int, default=43, help="mean length in tokens")
    parser.add_argument("--longest", type=int, default=285, help="longest length in tokens")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="a classifier's directory; default: random weights")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def make_model(directory: Path) -> None:
    import torch

    from unmask.electra.config import SHAPES
    from unmask.electra.heads import ElectraForSequenceClassification

    torch.manual_seed(0)
    model = ElectraForSequenceClassification(SHAPES["small"].discriminator)
    with torch.no_grad():
        # Sharper than fresh weights: the answer depends on the text.
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "embeddings" not in name:
                parameter.mul_(2)
    model.save_pretrained(directory)


def summarise(requests: int, done: dict[str, Measured], errors: dict[str, str]) -> dict[str, Any]:
    speeds = {engine: requests / statistics.median(its.seconds) for engine, its in done.items()}
    summary: dict[str, Any] = {"speeds": speeds, "ratios": ratios(speeds), "errors": errors}
    logits = {engine: np.array(its.first) for engine, its in done.items()}
    wanted = logits.get(REFERENCE)
    if wanted is not None:
        top = np.abs(wanted).max()
        summary["change"] = {name: float(np.abs(got - wanted).max() / top) for name, got in logits.items()}
        summary["same"] = {
            name: float((got.argmax(1) == wanted.argmax(1)).mean()) for name, got in logits.items()
        }
    return summary


def ratios(speeds: dict[str, float]) -> dict[str, float]:
    low = max((name for name in LOW if name in speeds), key=speeds.__getitem__, default="")
    pairs = [
        ("unmask float32", "onnxruntime float32 sorted"),
        (low, "onnxruntime int8 sorted"),
        (low, "transformers float32 padded"),
    ]
    return {f"{a} / {b}": speeds[a] / speeds[b] for a, b in pairs if a in speeds and b in speeds}


def show(summary: dict[str, Any]) -> None:
    print(f"    {'':30}{'sequences/s':>12}{'change':>10}{'same':>9}")
    for engine, speed in summary["speeds"].items():
        notes = ""
        if "change" in summary:
            notes = f"{summary['change'][engine]:10.5f}{summary['same'][engine]:9.1%}"
        print(f"    {engine:30}{speed:12.0f}{notes}")
    for engine, error in summary["errors"].items():
        print(f"    {engine:30} - {error}")
    for pair, ratio in summary["ratios"].items():
        print(f"    {pair}: {ratio:.2f}")


def main() -> None:
    options = arguments()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    engines = {name: ENGINES[name] for name in options.engines.split(",")}
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or Path(folder)
        if options.model is None:
            make_model(model)
        workers = start(engines, model, options.threads)
        task = {name: getattr(options, name) for name in ("requests", "mean", "longest", "seed")}
        print(f"{task}, {options.threads} threads, load {os.getloadavg()[0]:.1f}")
        summary = summarise(options.requests, *take_turns(workers, options.rounds, **task))
        show(summary)
        if options.json:
            options.json.write_text(json.dumps({"task": task, **summary}, indent=1))
        for worker in workers.values():
            worker.close()


if __name__ == "__main__":
    main()
