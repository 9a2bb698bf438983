"""Peak memory of `unmask corpus`, `tokenizer train`, `pack` and `pretrain` against the size of the corpus.

    python benchmarks/corpus_memory.py --corpus CORPUS.jsonl.gz … --times 1 10

Writes the corpus so many times over into a temporary directory, the vowels of each copy exchanged so that no copy
is a duplicate of another, and runs the commands on each: tokenizers are trained on a sample, models for some steps,
measured on as much held-out text whatever the size. Begin with more than a part of `unmask corpus`, 32 million
characters, to see memory stay flat. Printed are the largest process and the sum over all processes of a command, in
MiB of memory of their own (RssAnon, looked at 50 times a second): pages of mapped files, which the system takes back
when it needs them, do not count.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import islice, permutations
from pathlib import Path

COMMANDS = ("corpus", "tokenizer", "pack", "pretrain")
VOWELS = "aeiou"
CLEANING = ["--clean", "c4", "--without", "bad-words", "language", "--near-duplicates"]


def write_copies(files: list[Path], times: int, folder: Path) -> int:
    """A file a copy; gives the characters written."""
    folder.mkdir()
    characters = 0
    for number, vowels in enumerate(islice(permutations(VOWELS), times)):
        exchange = str.maketrans(VOWELS + VOWELS.upper(), "".join(vowels) + "".join(vowels).upper())
        with gzip.open(folder / f"{number:03}.jsonl.gz", "wt", 1, encoding="utf-8") as copy:
            for file in files:
                with gzip.open(file, "rt", encoding="utf-8") as lines:
                    for line in lines:
                        text = json.loads(line)["text"].translate(exchange)
                        copy.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                        characters += len(text)
    return characters


def own_memory(root: int) -> list[int]:
    """KiB of anonymous memory of a process and of each below it."""
    parents, sizes = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            lines = (entry / "status").read_text().splitlines()
        except OSError:
            continue
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        parents[int(entry.name)] = int(fields["PPid"])
        sizes[int(entry.name)] = int(fields.get("RssAnon", "0 kB").split()[0])
    tree, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        tree.append(sizes.get(pid, 0))
        waiting += [child for child, parent in parents.items() if parent == pid]
    return tree


def measured(arguments: list[object]) -> tuple[float, float, float]:
    """MiB of the largest process and of all, and seconds."""
    command = [sys.executable, "-c", "from unmask.cli import main; main()", *map(str, arguments)]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    largest = together = 0
    while process.poll() is None:
        sizes = own_memory(process.pid)
        largest, together = max(largest, *sizes), max(together, sum(sizes))
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"failed: unmask {' '.join(map(str, arguments))}")
    return largest / 1024, together / 1024, time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--corpus", type=Path, nargs="+", required=True, help="JSON lines with a text, gzipped"
    )
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--steps", type=int, default=100, help="of pre-training")
    parser.add_argument("--sample-bytes", type=int, default=10_000_000, help="that tokenizers are trained on")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    options = parser.parse_args()
    for times in options.times:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            characters = write_copies(options.corpus, times, folder / "raw")
            print(f"{times} times, {characters / 1e6:.0f} M characters", flush=True)
            workers = ["--workers", options.workers]
            steps: dict[str, list[object]] = {}
            train = folder / "raw"
            if "corpus" in options.commands:
                steps["corpus"] = [train, "--out", folder / "clean", *CLEANING, *workers]
                train = folder / "clean" / "train"
            for kind, recipe in (("unigram", "t5-tiny"), ("wordpiece", "electra-tiny")):
                tokenizer, shards = folder / kind, folder / f"{kind}-shards"
                flags = ["--kind", kind, "--vocab-size", 4000, "--sample-bytes", options.sample_bytes]
                steps[f"tokenizer train, {kind}"] = ["train", train, "--out", tokenizer, *flags]
                held_out = ["--validation-share", 0.01 / times]
                steps[f"pack, {kind}"] = [
                    train,
                    "--tokenizer",
                    tokenizer,
                    "--out",
                    shards,
                    *held_out,
                    *workers,
                ]
                run = ["--data", shards, "--out", folder / f"{kind}-run", "--steps", options.steps]
                steps[f"pretrain, {recipe}"] = [recipe, *run, "--checkpoint-every", 0, "--threads", 1]
            for step, arguments in steps.items():
                command = step.split(",")[0].split()[0]
                if command not in options.commands:
                    continue
                largest, together, seconds = measured([command, *arguments])
                print(f"  {step:28}{largest:8.0f}{together:8.0f} MiB{seconds:8.0f} s", flush=True)


if __name__ == "__main__":
    main()
