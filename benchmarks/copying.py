"""What is copying speculation worth? Greedy decoding with and without it, on tasks that copy.

    bash benchmarks/copying_model.sh DATA OUT
    python benchmarks/copying.py OUT/tasks/wikisplit.toml OUT/wikisplit/model --json copying.json

Every held-out source is decoded both ways, in both precisions: the ids must be the same, or the benchmark fails.
Then the two take turns on some of the sources; tokens per second are medians over the rounds, encoder included,
sources sorted by length as `unmask generate` does. `--shape t5-small` adds zeros to the model, which writes the same
at that model's cost. `--wrong-sources` lets every text copy from another's source: what guesses cost that are hardly
ever right.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmask.generation import speculation
from unmask.generation.batching import batches_by_length
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.tokenizer import T5Tokenizer
from unmask.tasks.evaluation import HeldOut
from unmask.tasks.rows import read_rows
from unmask.tasks.task import Task, load_task

#: Published sizes, which cost what they cost whatever the weights are.
SHAPES: dict[str, dict[str, Any]] = {
    "t5-small": {
        "vocab_size": 32128,
        "d_model": 512,
        "d_ff": 2048,
        "num_layers": 6,
        "num_decoder_layers": 6,
        "num_heads": 8,
    }
}
#: Tokens of the batches that are compared: of few texts, so that much is guessed.
BATCH_TOKENS = 2_048


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("task", type=Path, help="a task's TOML file, with a test")
    parser.add_argument("model", type=Path, help="a T5 fine-tuned on it")
    parser.add_argument("--dtypes", default="float32,int8")
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--sources", type=int, help="use the first so many only")
    parser.add_argument("--timed", default="32,64,128", help="sources timed at each batch size, drawn evenly")
    parser.add_argument("--rounds", type=int, default=5, help="0: no timing")
    parser.add_argument("--drafts", default="0", help="draft_tokens to try; 0: the default")
    parser.add_argument("--skip-check", action="store_true", help="time only")
    parser.add_argument("--shape", choices=list(SHAPES), help="give the model this size by adding zeros")
    parser.add_argument(
        "--wrong-sources", action="store_true", help="let texts copy from each other's sources"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


class Counts:
    """What guesses come to: tokens verified, those of them that were right, and passes, each row's counted."""

    def __init__(self) -> None:
        self.guessed = self.right = self.passes = 0
        learn = speculation._Row.learn

        def counted(row: Any, odds: Any, chosen: int, verified: int, accepted: int) -> None:
            self.guessed += verified
            self.right += accepted
            self.passes += 1
            learn(row, odds, chosen, verified, accepted)

        speculation._Row.learn = counted  # type: ignore[method-assign]

    def take(self) -> tuple[int, int, int]:
        taken = self.guessed, self.right, self.passes
        self.guessed = self.right = self.passes = 0
        return taken


class Bench:
    """One model in one precision, and sources of one task."""

    def __init__(self, model: T5ForConditionalGeneration, task: Task, sources: list[list[int]]) -> None:
        self.model, self.sources = model, sources
        self.limit = task.max_target_length

    def write(self, places: list[int], **options: Any) -> list[list[int]]:
        """The ids written for some sources, `</s>` included."""
        longest = max(len(self.sources[place]) for place in places)
        ids = torch.zeros(len(places), longest, dtype=torch.int64)
        for row, place in enumerate(places):
            ids[row, : len(self.sources[place])] = torch.tensor(self.sources[place])
        written = self.model.generate(ids, (ids != 0).long(), max_new_tokens=self.limit, **options)
        return [_unpadded(row) for row in written[:, 1:]]

    def write_all(self, **options: Any) -> list[list[int]]:
        results: list[list[int]] = [[] for _ in self.sources]
        lengths = [len(source) for source in self.sources]
        for places in batches_by_length(lengths, BATCH_TOKENS, extra=self.limit):
            for place, ids in zip(places, self.write(places, **options), strict=True):
                results[place] = ids
        return results

    def seconds(self, batches: list[list[int]], **options: Any) -> float:
        begun = time.perf_counter()
        for places in batches:
            self.write(places, **options)
        return time.perf_counter() - begun


def _unpadded(row: Tensor) -> list[int]:
    ids: list[int] = row.tolist()
    return ids[: ids.index(1) + 1] if 1 in ids else ids


def check(bench: Bench, counts: Counts) -> tuple[list[list[int]], dict[str, Any]]:
    """Both ways over all sources.

    Raises:
        SystemExit: a result differs.
    """
    greedy = bench.write_all()
    counts.take()
    copied = bench.write_all(speculate=True)
    guessed, right, _ = counts.take()
    different = [place for place, ids in enumerate(greedy) if ids != copied[place]]
    if different:
        sys.exit(f"{len(different)} of {len(greedy)} results DIFFER, the first that of source {different[0]}")
    tokens = sum(map(len, greedy))
    return greedy, {
        "sources": len(greedy),
        "identical": True,
        "tokens": tokens,
        "tokens_copied": right / tokens,
        "guesses_right": right / max(1, guessed),
    }


def timed_batches(sources: list[list[int]], batch: int, wanted: int) -> list[list[int]]:
    """Sources drawn evenly from all, in batches of similar length."""
    drawn = range(0, len(sources), max(1, len(sources) // wanted))[:wanted]
    by_length = sorted(drawn, key=lambda place: len(sources[place]))
    return [by_length[first : first + batch] for first in range(0, len(by_length), batch)]


def time_both(
    bench: Bench, counts: Counts, batches: list[list[int]], draft: int, rounds: int
) -> dict[str, float]:
    copying = {"speculate": True} | ({"draft_tokens": draft} if draft else {})
    tokens = sum(len(ids) for places in batches for ids in bench.write(places))
    bench.seconds(batches[:2], **copying)
    counts.take()
    plain, fast = [], []
    for _ in range(rounds):
        plain.append(bench.seconds(batches))
        fast.append(bench.seconds(batches, **copying))
    guessed, right, passes = counts.take()
    return {
        "greedy": tokens / statistics.median(plain),
        "copying": tokens / statistics.median(fast),
        "ratio": statistics.median(slow / quick for slow, quick in zip(plain, fast, strict=True)),
        "tokens_a_pass": rounds * tokens / passes,
        "guesses_right": right / max(1, guessed),
    }


def quality(held_out: HeldOut, tokenizer: T5Tokenizer, greedy: list[list[int]]) -> dict[str, Any]:
    """BLEU and exact match of the model and of the input as it is."""
    rows = held_out.rows[: len(greedy)]
    part = HeldOut(held_out.task, held_out.training, rows)
    answers = {
        "model": [tokenizer.decode(ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids) for ids in greedy],
        "copy of the input": [row.sources[0] for row in rows],
    }
    return {name: dict(part.score(texts).scores) for name, texts in answers.items()}


def with_wrong_sources() -> None:
    """From now on the texts of a batch are given each other's sources to copy from."""
    right = speculation.Copier
    previous: list[Any] = [[5, 6, 7]]

    def wrong(source: Any, end_id: int) -> speculation.Copier:
        taken, previous[0] = previous[0], source
        return right(taken, end_id)

    speculation.Copier = wrong  # type: ignore[assignment,misc]


def widened(model: T5ForConditionalGeneration, shape: str) -> T5ForConditionalGeneration:
    """The same function at the cost of a larger model: its matrices are the corner of matrices of zeros.

    A norm divides by the root mean square of twice as many numbers, half of them 0: its weight makes up for that.
    The layers above the model's own add nothing. Where all logits of the model's tokens were negative, a row of zeros
    would win: `check` compares the ids.
    """
    small = model.config
    large = T5ForConditionalGeneration(dataclasses.replace(small, **SHAPES[shape]))
    own = model.state_dict()
    factor = math.sqrt(small.d_model / large.config.d_model)
    with torch.no_grad():
        for name, weight in large.state_dict().items():
            weight.zero_()
            if name not in own:
                continue
            corner = tuple(slice(size) for size in own[name].shape)
            # Behind the decoder's norm the logits' scale, d_model^-0.5, makes up for it instead.
            scaled = "norm" in name and name != "decoder.final_norm.weight"
            weight[corner] = own[name] * (factor if scaled else 1.0)
    return large.eval()


def load(options: argparse.Namespace, dtype: str) -> T5ForConditionalGeneration:
    if options.shape is None:
        return T5ForConditionalGeneration.from_pretrained(options.model, dtype=dtype)
    with tempfile.TemporaryDirectory() as folder:
        widened(T5ForConditionalGeneration.from_pretrained(options.model), options.shape).save_pretrained(
            folder
        )
        return T5ForConditionalGeneration.from_pretrained(folder, dtype=dtype)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def settings(options: argparse.Namespace) -> Iterator[tuple[int, int, int]]:
    for batch, wanted in zip(numbers(options.batches), numbers(options.timed), strict=True):
        for draft in numbers(options.drafts):
            yield batch, wanted, draft


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    task = load_task(options.task)
    held_out = HeldOut(task, (), read_rows(task, "test", grouped=True)[: options.sources])
    tokenizer = T5Tokenizer.from_pretrained(options.model)
    sources = [
        [*ids[: task.max_source_length - 1], tokenizer.eos_token_id]
        for ids in (tokenizer.encode(row.sources[0], add_special_tokens=False) for row in held_out.rows)
    ]
    counts = Counts()
    if options.wrong_sources:
        with_wrong_sources()
    report: dict[str, Any] = {
        "task": task.name,
        "threads": options.threads,
        "shape": options.shape,
        "precisions": {},
    }
    for dtype in options.dtypes.split(","):
        bench = Bench(load(options, dtype), task, sources)
        found: dict[str, Any] = {}
        report["precisions"][dtype] = found
        if not options.skip_check:
            greedy, found["check"] = check(bench, counts)
            found["quality"] = quality(held_out, tokenizer, greedy)
            show_check(task, dtype, found)
        found["speed"] = []
        for batch, wanted, draft in settings(options) if options.rounds else ():
            batches = timed_batches(sources, batch, wanted)
            speed = time_both(bench, counts, batches, draft, options.rounds)
            found["speed"].append({"batch": batch, "draft_tokens": draft or None, **speed})
            show_speed(task, dtype, batch, draft, speed)
        if options.json:
            options.json.write_text(json.dumps(report, indent=1))


def show_check(task: Task, dtype: str, found: dict[str, Any]) -> None:
    check = found["check"]
    print(
        f"{task.name}, {dtype}: the ids of all {check['sources']:,} sources are those of greedy decoding; "
        f"{check['tokens']:,} tokens, {check['tokens_copied']:.0%} of them copied, "
        f"{check['guesses_right']:.0%} of the guesses right"
    )
    for name, scores in found["quality"].items():
        print("   ", name, ", ".join(f"{metric} {score:.3f}" for metric, score in scores.items()))


def show_speed(task: Task, dtype: str, batch: int, draft: int, speed: dict[str, float]) -> None:
    drafts = f", draft {draft}" if draft else ""
    print(
        f"{task.name}, {dtype}, batch {batch}{drafts}: greedy {speed['greedy']:,.0f} tokens/s, "
        f"copying {speed['copying']:,.0f}, {speed['ratio']:.2f}×; {speed['tokens_a_pass']:.1f} tokens a pass, "
        f"{speed['guesses_right']:.0%} of the guesses right",
        flush=True,
    )


if __name__ == "__main__":
    main()
