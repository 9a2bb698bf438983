"""Peak memory of `unmask generate` against the number of lines: it must be flat.

Writes a random T5 and files of lines into a temporary directory, answers each file in a process of its own, and
prints the process's peak resident memory and its time. Random weights write nothing of sense, and hardly ever
end: every answer has all its tokens.

    python benchmarks/memory.py --lines 1000 10000 --shape tiny small
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from unmask import T5Config, T5ForConditionalGeneration
from unmask.corpus.reading import read_documents
from unmask.t5.tokenizer import T5Tokenizer

SAMPLE = Path(__file__).parents[1] / "src" / "unmask" / "sample" / "corpus.jsonl.gz"
SHAPES = {
    "tiny": {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4},
    "small": {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
}


def write_model(directory: Path, shape: str, texts: list[str]) -> None:
    tokenizer = T5Tokenizer.train(texts, 4000)
    torch.manual_seed(0)
    T5ForConditionalGeneration(T5Config(vocab_size=4128, **SHAPES[shape])).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def write_lines(path: Path, count: int, words: list[str]) -> None:
    """Lines of 1 to 60 words."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            file.write(" ".join(draw.choices(words, k=draw.randint(1, 60))) + "\n")


def measured(command: list[str]) -> tuple[float, float]:
    """Peak resident MiB and seconds of a process."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return usage.ru_maxrss / 1024, time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["tiny"])
    parser.add_argument("--max-new-tokens", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="more flags of unmask generate")
    arguments = parser.parse_args()
    texts = [document.text for document, _ in zip(read_documents(SAMPLE), range(4000), strict=False)]
    words = sorted({word for text in texts for word in text.split()})
    results = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for shape in arguments.shape:
            write_model(place / shape, shape, texts)
            for count in arguments.lines:
                write_lines(place / "in.txt", count, words)
                flags = [
                    "--max-new-tokens",
                    str(arguments.max_new_tokens),
                    "--threads",
                    str(arguments.threads),
                ]
                call = [
                    "generate",
                    str(place / shape),
                    str(place / "in.txt"),
                    "--out",
                    str(place / "out.txt"),
                ]
                program = [sys.executable, "-c", "from unmask.cli import main; main()"]
                memory, seconds = measured([*program, *call, *flags, *arguments.flags])
                results.append(
                    {"shape": shape, "lines": count, "peak_mib": round(memory), "seconds": seconds}
                )
                print(f"{shape:6} {count:8,} lines  {memory:7,.0f} MiB  {seconds:7.1f} s", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
