"""unmask's way from text to batches: each piece of work by name, on what `benchmarks/data.py` prepared."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing, redirect_stdout
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from data_texts import BAD_WORDS, LENGTH, ROWS, TEXTS, Run, in_batches, text_bytes, units

#: Tokens a second that the consumer takes.
RATE = 100_000
ELECTRA = ("replaced-tokens", "masked-diffusion")


def load(folder: Path, work: str, threads: int) -> Run:
    torch.set_num_threads(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    kind, _, name = work.partition(" ")
    makers: dict[str, Callable[[Path, str], Run]] = {
        "clean": _clean,
        "tokenise": _tokenise,
        "pack": _pack,
        "objective": _objective,
        "stream": _stream,
        "wait": partial(_wait, busy=False, processes=0),
        "wait-process": partial(_wait, busy=False, processes=1),
        "wait-busy": partial(_wait, busy=True, processes=0),
        "wait-busy-process": partial(_wait, busy=True, processes=1),
    }
    return makers[kind](folder, name)


def _clean(folder: Path, name: str) -> Run:
    from unmask.corpus.executors import in_this_process
    from unmask.corpus.pipeline import make_corpus
    from unmask.corpus.recipe import CorpusRecipe

    recipe = CorpusRecipe.load(name, overrides={"bad_words": folder / BAD_WORDS, "validation_share": 0.0})

    def run(repeats: int) -> list[float]:
        with TemporaryDirectory(dir=folder) as out:
            corpus = make_corpus([str(folder / TEXTS)], Path(out) / "corpus", recipe, in_this_process)
            return [text_bytes(folder), corpus.ledger.step("train").documents_out]

    return run


def _tokenise(folder: Path, name: str) -> Run:
    from unmask.vocabulary.loading import load_any_tokenizer

    tokenizer = load_any_tokenizer(str(folder / name))
    batches = in_batches(units(folder, name))

    def run(repeats: int) -> list[float]:
        rows = (tokenizer.encode_batch(texts, add_special_tokens=False) for texts in batches)
        return [text_bytes(folder), sum(sum(map(len, batch)) for batch in rows)]

    return run


def _pack(folder: Path, name: str) -> Run:
    from unmask.data.shards import Shards

    def run(repeats: int) -> list[float]:
        with TemporaryDirectory(dir=folder) as out:
            pack_texts(folder, name, Path(out) / "shards")
            shards = Shards.open(Path(out) / "shards", verify=False)
            return [text_bytes(folder), shards.train.tokens + shards.validation.tokens]

    return run


def pack_texts(folder: Path, name: str, out: Path) -> None:
    """What `unmask pack` does, without its table."""
    from unmask.cli.pack import pack

    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        pack([str(folder / TEXTS)], tokenizer=str(folder / name), out=out)


# --- batches ---------------------------------------------------------------------------------------------


def _batches(folder: Path, objective: str) -> Any:
    """The stream that `unmask pretrain` trains on."""
    from unmask.data.shards import Shards
    from unmask.training.electra import training_batches
    from unmask.training.recipe import IDLE_FIELDS, PretrainRecipe
    from unmask.training.t5 import t5_training_batches
    from unmask.vocabulary.loading import load_any_tokenizer

    # T5's 100 sentinels are too few for half of 512 tokens in spans of three.
    length = 384 if objective == "ul2" else LENGTH
    settings: dict[str, Any] = {"objective": objective, "length": length, "batch_size": ROWS}
    family, vocabulary = ("electra", "wordpiece") if objective in ELECTRA else ("t5", "t5")
    if family == "t5" and "noise_density" not in IDLE_FIELDS.get(objective, ()):
        settings["noise_density"] = 0.5 if objective == "prefix-lm" else 0.15
    make: Any = training_batches if family == "electra" else t5_training_batches
    recipe = PretrainRecipe.load(f"{family}-tiny", settings)
    shards = Shards.open(folder / f"shards-{vocabulary}", verify=False)
    return make(recipe, shards, load_any_tokenizer(str(folder / vocabulary)))


def _objective(folder: Path, name: str) -> Run:
    """Batches that are fetched already; each is corrupted with a generator of its own."""
    from unmask.objectives.randomness import generator

    source = _batches(folder, name)._source
    plan = source.plan(generator(0, "plan"))
    fetched = [plan.fetch(np.arange(first, first + ROWS)) for first in range(0, 8 * ROWS, ROWS)]

    def run(repeats: int) -> list[float]:
        total = 0
        for number in range(repeats):
            batch = fetched[number % len(fetched)]
            source.finish(batch, generator(0, "corruption", number), number)
            total += len(batch["tokens"])
        return [total, ROWS * repeats]

    return run


def _tokens(batch: dict[str, np.ndarray]) -> int:
    return len(batch["inputs"]) + len(batch["targets"]) if "inputs" in batch else len(batch["tokens"])


def _stream(folder: Path, name: str) -> Run:
    batches = _batches(folder, name)
    batches[0]  # makes the epoch's plan

    def run(repeats: int) -> list[float]:
        return [sum(_tokens(batches[number]) for number in range(repeats)), ROWS * repeats]

    return run


def _wait(folder: Path, name: str, *, busy: bool, processes: int) -> Run:
    """Takes `repeats` batches as training does, at `RATE`: [seconds, seconds waited, of these for the first].

    Between two batches it sleeps, as if a device worked; or, `busy`, it computes on all threads.
    """
    from unmask.data.stream import read_ahead

    batches = _batches(folder, name)
    square = torch.randn(512, 512)

    def consume(until: float) -> None:
        if not busy:
            time.sleep(max(0.0, until - time.perf_counter()))
        while time.perf_counter() < until:
            torch.mm(square, square)

    def run(repeats: int) -> list[float]:
        begin = time.perf_counter()
        waits = []
        with closing(read_ahead(batches, 0, repeats, workers=processes)) as stream:
            for _ in range(repeats):
                start = time.perf_counter()
                batch = next(stream)
                now = time.perf_counter()
                waits.append(now - start if waits else now - begin)
                consume(now + _tokens(batch) / RATE)
        return [time.perf_counter() - begin, sum(waits), waits[0]]

    return run
