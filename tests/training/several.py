"""Tiny runs of both families on several processes of this machine, over gloo."""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from unmask.data.shards import Shards
from unmask.electra.model import ElectraForMaskedLM
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.t5.tokenizer import T5Tokenizer
from unmask.training.family import Pretraining
from unmask.training.held_out import held_out_metrics
from unmask.training.loop import train
from unmask.training.metrics import read_metrics
from unmask.training.pretraining import pretraining_of
from unmask.training.ranks import ALONE, Ranks
from unmask.training.recipe import PretrainRecipe
from unmask.training.settings import Execution

TOKENIZERS = {"t5": T5Tokenizer, "electra": ElectraTokenizer}
PRELOADED = ["torch", "torch.distributed.fsdp", "torch.distributed.checkpoint", "unmask.training.pretraining"]


class Stop(Exception):
    """A run is broken off."""


def on_ranks(count: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """`work(ranks, *arguments)` on so many processes: what each returns. It must be a function of a module.

    Raises:
        AssertionError: one failed.
    """
    context = multiprocessing.get_context("forkserver")
    # So that torch is not imported by each.
    context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_rank, args=(number, count, folder, work, arguments))
            for number in range(count)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * count
        return [pickle.loads((Path(folder) / str(number)).read_bytes()) for number in range(count)]  # noqa: S301


def _rank(number: int, count: int, folder: str, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=number,
        world_size=count,
        timeout=timedelta(seconds=240),
    )
    result = work(Ranks(number, count), *arguments)
    (Path(folder) / str(number)).write_bytes(pickle.dumps(result))
    dist.destroy_process_group()


def recipe_of(family: str, **changes: Any) -> PretrainRecipe:
    """A model of two layers, batches of seven texts, which no number of ranks shares evenly."""
    values = {
        "family": family,
        "vocab_size": 400 if family == "t5" else 130,
        "layers": 2,
        "width": 16,
        "heads": 2,
        "feed_forward_width": 32,
        "dropout": 0.1,
        "length": 24,
        "batch_size": 7,
        "steps": 50,
        "optimiser": "scaled-adamw" if family == "t5" else "electra-adam",
        "learning_rate": 1e-2 if family == "t5" else 2e-3,
        "warmup_steps": 5,
        "precision": "float32",
        "ema_decay": 0.9,
        "log_every": 1,
        "evaluate_every": 25,
    }
    return PretrainRecipe(**(values | changes))


def work_of(family: str, data: Path, **changes: Any) -> Pretraining:
    """A run of `recipe_of`, its model in training."""
    tokenizer = TOKENIZERS[family].from_pretrained(data / family / "tokenizer")
    shards = Shards.open(data / family / "shards", tokenizer)
    work = pretraining_of(recipe_of(family, **changes), shards, tokenizer, torch.device("cpu"))
    work.model.train()
    return work


def run(
    ranks: Ranks,
    recipe: PretrainRecipe,
    data: Path,
    directory: Path,
    *,
    kind: torch.dtype = torch.float64,
    stop_at: int | None = None,
    not_finite_at: int | None = None,
    fixed_samples: bool = False,
    **execution: Any,
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """The metrics of a run, and the weights at its end (of the first rank).

    Args:
        data: holds t5/ and electra/, each a tokenizer/ and shards/.
        kind: of the weights.
        stop_at: a step that is not made any more.
        not_finite_at: a step whose loss on the last rank is not a number.
        fixed_samples: the generator's samples depend on the places alone.
        execution: of `Execution`.
    """
    tokenizer = TOKENIZERS[recipe.family].from_pretrained(data / recipe.family / "tokenizer")
    shards = Shards.open(data / recipe.family / "shards", tokenizer)
    work = pretraining_of(recipe, shards, tokenizer, torch.device("cpu"))
    work.model.to(kind)

    def sample(
        self: Any, hidden: Tensor, uniforms: Tensor, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        drawn = (uniforms * tokenizer.vocab_size).long()
        return drawn, drawn

    real = ElectraForMaskedLM.sample
    if fixed_samples:
        ElectraForMaskedLM.sample = sample  # type: ignore[method-assign, assignment]

    def loss_of(batch: Any, step: int, whole: Any) -> Any:
        if step == stop_at:
            raise Stop
        loss = work.loss_of(batch, step, whole)
        fails = step == not_finite_at and ranks.number == ranks.count - 1
        return replace(loss, total=loss.total * math.nan) if fails else loss

    try:
        train(
            work.model,
            work.batches,
            loss_of,
            recipe.loop_settings(),
            directory,
            label=recipe.family,
            evaluate=lambda: held_out_metrics(work, ranks),
            ranks=ranks,
            execution=Execution(**execution),
        )
    except Stop:
        pass
    finally:
        ElectraForMaskedLM.sample = real  # type: ignore[method-assign]
    lines = read_metrics(directory / "metrics.jsonl")
    if not ranks.is_first:
        return lines, {}
    return lines, {name: tensor.detach().clone() for name, tensor in work.model.state_dict().items()}


def runs(
    ranks: Ranks, data: Path, directory: Path, chosen: list[tuple[str, dict[str, Any], dict[str, Any]]]
) -> list[Any]:
    """Several runs, one after another: (family, changes of the recipe, options of `run`)."""
    return [
        run(ranks, recipe_of(family, **changes), data, directory / str(number), **options)
        for number, (family, changes, options) in enumerate(chosen)
    ]


def alone(data: Path, directory: Path, chosen: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> list[Any]:
    """The same on one process."""
    return runs(ALONE, data, directory, chosen)
