"""How fast does T5 write? unmask beside Transformers, CTranslate2 and ONNX Runtime, in one run.

    python benchmarks/decode.py --models t5-small --batches 1,8,32 --rounds 5 --json decode.json

Random weights of published shapes; source of equal lengths, `</s>` never written, so that every engine makes
the same number of tokens. Each engine lives in a process of its own and they take turns in every round: a pool
of threads that spins behind its work would slow a neighbour in the same process. Numbers are medians of tokens
per second, encoder included; `least` is the ratio of unmask to the fastest peer of the same precision.

Needs the peers: pip install transformers ctranslate2 onnxruntime onnx. What is absent is left out and named.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from engines import Engine, Measured, start, take_turns

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"d_model": 64, "d_ff": 128, "num_layers": 2, "num_heads": 2, "d_kv": 32, "vocab_size": 512},
    "t5-small": {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
    "t5-base": {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
}
BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
ENGINES = {
    "unmask float32": Engine("ours", "float32", "unmask"),
    "unmask bfloat16": Engine("ours", "bfloat16", "unmask"),
    "unmask int8": Engine("ours", "int8", "unmask"),
    "transformers eager": Engine("hf", "eager", "transformers"),
    "transformers sdpa": Engine("hf", "sdpa", "transformers"),
    "transformers bfloat16": Engine("hf", "bfloat16", "transformers"),
    "ctranslate2 float32": Engine("ct2", "float32", "ctranslate2"),
    "ctranslate2 int8": Engine("ct2", "int8", "ctranslate2"),
    "onnxruntime float32": Engine("ort", "float32", "onnxruntime"),
    "onnxruntime int8": Engine("ort", "int8", "onnxruntime"),
}
#: The precision of each: Transformers' two ways of attention are float32.
KINDS = {name: engine.work if engine.work in BYTES else "float32" for name, engine in ENGINES.items()}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", default="t5-small,t5-base", help=", ".join(SHAPES))
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--sources", default="64,256", help="tokens of each source")
    parser.add_argument("--new", default="64,256", help="tokens to write")
    parser.add_argument("--beams", default="1,4")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def make_model(shape: dict[str, Any], directory: Path) -> None:
    """Random weights in which `</s>` is never the likeliest token."""
    import torch

    from unmask.t5.config import T5Config
    from unmask.t5.model import T5ForConditionalGeneration

    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(**shape))
    with torch.no_grad():
        model.embedding.weight[1] = 0
        # Sharper than fresh weights: each token depends on what was read and written.
        for name, parameter in model.named_parameters():
            if "position" in name:
                parameter.normal_()
    model.save_pretrained(directory)


def decoder_weights(shape: dict[str, Any]) -> int:
    """Weights that one step must read: cross-attention's keys and values are made once a text."""
    width, inner = shape["d_model"], shape["num_heads"] * shape.get("d_kv", 64)
    layer = 6 * width * inner + 2 * width * shape["d_ff"]
    return shape["num_layers"] * layer + width * shape.get("vocab_size", 32128)


def summarise(task: dict[str, int], done: dict[str, Measured], errors: dict[str, str]) -> dict[str, Any]:
    tokens = task["batch"] * task["new"]
    speeds = {engine: tokens / statistics.median(its.seconds) for engine, its in done.items()}
    ids = {engine: its.first for engine, its in done.items() if KINDS[engine] == "float32"}
    reference = next(iter(ids.values()), None)
    return {
        "speeds": speeds,
        "ratios": ratios(speeds),
        "errors": errors,
        "float32_ids_equal": {engine: got == reference for engine, got in ids.items()},
    }


def ratios(speeds: dict[str, float]) -> dict[str, float]:
    """unmask over the fastest of CTranslate2 and ONNX Runtime; bfloat16 over their fastest float32."""
    found = {}
    for kind, against in (("float32", "float32"), ("bfloat16", "float32"), ("int8", "int8")):
        peers = [speeds.get(f"{peer} {against}", 0.0) for peer in ("ctranslate2", "onnxruntime")]
        if speeds.get(f"unmask {kind}") and max(peers):
            found[kind] = speeds[f"unmask {kind}"] / max(peers)
    return found


def show(task: dict[str, int], summary: dict[str, Any], floor: dict[str, float]) -> None:
    print("  " + ", ".join(f"{name} {value}" for name, value in task.items()))
    for engine, speed in summary["speeds"].items():
        equal = summary["float32_ids_equal"].get(engine)
        note = "" if equal is None else "ids equal" if equal else "IDS DIFFER"
        print(f"    {engine:24}{speed:10.0f} tokens/s   {note}")
    for engine, error in summary["errors"].items():
        print(f"    {engine:24} - {error}")
    for kind, ratio in summary["ratios"].items():
        print(f"    unmask {kind} / fastest peer: {ratio:.2f}")
    bound = ", ".join(f"{kind} {task['batch'] / seconds:.0f}" for kind, seconds in floor.items())
    print(f"    memory allows at most (greedy, weights alone): {bound} tokens/s", flush=True)


def main() -> None:
    options = arguments()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    engines = {name: ENGINES[name] for name in options.engines.split(",")}
    report: list[dict[str, Any]] = []
    for name in options.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            make_model(SHAPES[name], Path(folder))
            workers = start(engines, Path(folder), options.threads)
            bandwidth = max(worker.ready["bandwidth"] for worker in workers.values())
            weights = decoder_weights(SHAPES[name])
            floor = {kind: weights * size / bandwidth for kind, size in BYTES.items()}
            print(
                f"{name}: {weights / 1e6:.1f} M weights a step, memory reads {bandwidth / 1e9:.0f} GB/s, "
                f"{options.threads} threads, load {os.getloadavg()[0]:.1f}"
            )
            for source in numbers(options.sources):
                for new in numbers(options.new):
                    for beams in numbers(options.beams):
                        for batch in numbers(options.batches):
                            task = {"batch": batch, "source": source, "new": new, "beams": beams}
                            summary = summarise(task, *take_turns(workers, options.rounds, **task))
                            show(task, summary, floor)
                            report.append({"model": name, **task, **summary, "floor_seconds": floor})
                            if options.json:
                                options.json.write_text(json.dumps(report, indent=1))
            for worker in workers.values():
                worker.close()


if __name__ == "__main__":
    main()
