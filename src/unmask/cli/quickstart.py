"""`unmask quickstart`: a list of calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unmask.cli.machine import Machine
from unmask.tasks.settings import FinetuneSettings

if TYPE_CHECKING:
    from unmask.cli.quickstart_report import Pretrained

#: What the two tasks are fine-tuned with: 292 and 563 steps.
RESTAURANTS = FinetuneSettings(epochs=2, optimiser="scaled-adamw", learning_rate=2e-2)
SENSES = FinetuneSettings(epochs=3, learning_rate=2e-3, layer_decay=1.0)

SENTENCE = "a small ___ that is used to cut bread or other food"


def quickstart(*, out: Path = Path("quickstart"), machine: Machine = Machine()) -> None:  # noqa: B008 (frozen)
    """Train, fine-tune and evaluate a tiny T5 and a tiny ELECTRA, from raw text to scores, in a few minutes.

    Needs no network: 20,000 dictionary definitions and texts about restaurants ship with unmask. Both models
    are pre-trained on them, then T5 learns to describe restaurants from attributes and ELECTRA to tell the
    sense of a definition; each is scored beside simple baselines and beside the same model without
    pre-training. The same command continues where a stopped one was.

    Args:
        out: directory for models, metrics.json and report.html.
    """
    from importlib.resources import files

    from rich.console import Console

    from unmask.cli.quickstart_report import read_sample_text, write_report
    from unmask.report import print_table
    from unmask.tasks.presentation import score_table
    from unmask.tasks.study import study
    from unmask.tasks.task import load_task

    sample = Path(str(files("unmask") / "sample"))
    device = machine.prepare()
    console = Console()

    console.rule("1/4  T5: tokenizer and pre-training by span corruption", align="left")
    t5 = _pretrain("t5-tiny", sample, out / "t5", device)
    console.rule("2/4  ELECTRA: tokenizer and pre-training by replaced-token detection", align="left")
    electra = _pretrain("electra-tiny", sample, out / "electra", device)
    console.rule("3/4  T5 describes restaurants: from scratch, then pre-trained", align="left")
    restaurants = study(
        load_task(sample / "restaurants" / "task.toml"),
        t5.model,
        out / "restaurants",
        RESTAURANTS,
        device=device,
    )
    console.rule("4/4  ELECTRA tells senses: from scratch, then pre-trained", align="left")
    senses = study(
        load_task(sample / "senses" / "task.toml"), electra.model, out / "senses", SENSES, device=device
    )
    reading = read_sample_text(electra.model, SENTENCE, device=device)
    write_report(out, t5, electra, restaurants, senses, reading)
    console.rule()
    for outcome in (restaurants, senses):
        print_table(score_table(outcome.task, outcome.evaluations, len(outcome.held_out.rows)), console)
    console.print(f"report: {out / 'report.html'}", soft_wrap=True)


def _pretrain(recipe_name: str, sample: Path, run: Path, device: object) -> Pretrained:
    import torch

    from unmask.cli.preparing import prepare_data
    from unmask.cli.quickstart_report import Pretrained
    from unmask.training.pretraining import pretrain
    from unmask.training.recipe import PretrainRecipe

    assert isinstance(device, torch.device)
    recipe = PretrainRecipe.load(recipe_name)
    shards, tokenizer = prepare_data(recipe, [str(sample / "corpus.jsonl.gz")], run, None)
    model = pretrain(recipe, shards, tokenizer, run, device=device)
    return Pretrained.read(recipe, shards, run, model)
