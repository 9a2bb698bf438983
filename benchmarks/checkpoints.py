"""What does a checkpoint cost a run? Steps of training without one, with one that they wait for, with one beside them.

    python benchmarks/checkpoints.py t5-laptop --batch-size 8

Each round makes the same number of steps in all three ways, on made-up text, and writes at most one checkpoint, which
is whole when the time is taken. Numbers are medians over rounds, in seconds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from unmask.training.allocator import kept_memory
from unmask.training.checkpoint_writer import CheckpointWriter
from unmask.training.checkpoints import save_checkpoint, state_of
from unmask.training.optimisers import make_optimiser
from unmask.training.pretraining import pretraining_of
from unmask.training.recipe import PretrainRecipe
from unmask.training.stand_in import stand_in

WAYS = ("none", "waited for", "beside")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    torch.set_num_threads(chosen.threads)
    recipe = PretrainRecipe.load(chosen.recipe, {"batch_size": chosen.batch_size, "precision": "float32"})
    with tempfile.TemporaryDirectory() as folder, kept_memory():
        shards, tokenizer = stand_in(recipe, Path(folder) / "data")
        work = pretraining_of(recipe, shards, tokenizer, torch.device("cpu"))
        work.model.train()
        optimiser = make_optimiser(
            recipe.optimiser, work.model.named_parameters(), learning_rate=1e-4, weight_decay=0.0
        )
        place = Path(folder) / "checkpoints"

        def step(number: int) -> None:
            optimiser.zero_grad(set_to_none=True)
            work.loss(number).total.backward()
            optimiser.step()

        def run(way: str, at: int) -> dict[str, float]:
            begun = time.perf_counter()
            waited = 0.0
            with CheckpointWriter(place, lambda: state_of(work.model, optimiser), keep=1) as writer:
                for number in range(chosen.steps):
                    step(number)
                    if number == 0 and way != "none":
                        before = time.perf_counter()
                        if way == "beside":
                            writer.save(at)
                        else:
                            save_checkpoint(place, at, state_of(work.model, optimiser), keep=1)
                        waited = time.perf_counter() - before
            return {"all": time.perf_counter() - begun, "waited": waited}

        step(0)
        found: dict[str, list[Any]] = {way: [] for way in WAYS}
        for number in range(chosen.rounds):
            for way in WAYS:
                found[way].append(run(way, number + 1))
        size = sum(tensor.nbytes for tensor in state_of(work.model, optimiser).values())
    print(
        f"{recipe.family}, a checkpoint of {size / 1e6:.0f} MB, {chosen.steps} steps, {chosen.threads} threads"
    )
    for way, rounds in found.items():
        whole, waited = (statistics.median(each[name] for each in rounds) for name in ("all", "waited"))
        print(f"{way:12} {whole:7.2f} s in all, of which the loop waited {waited:6.3f}")


if __name__ == "__main__":
    main()
