"""`unmask compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unmask.cli.machine import Machine


def compare(
    recipe: Path,
    *,
    out: Path,
    data: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    steps: int | None = None,
    seeds: int | None = None,
    machine: Machine = Machine(),  # noqa: B008 (frozen)
) -> None:
    """Compare pre-training objectives at equal compute; the same command again continues.

    Systems of one size are pre-trained on the same text with the same number of floating-point operations, then
    fine-tuned alike with several seeds. OUT/comparison.json and OUT/report.html hold the results.

    Args:
        recipe: a TOML file that names data, systems and tasks (see docs/pretraining.md).
        out: directory of the comparison.
        data: text to pre-train on, in place of the recipe's.
        steps: pre-training steps of the first system, in place of the recipe's.
        seeds: fine-tunings of each system on each task, in place of the recipe's.
    """
    from rich.console import Console

    from unmask.cli.preparing import prepare_data
    from unmask.electra.tokenizer import ElectraTokenizer
    from unmask.hub import write_json
    from unmask.report import print_table, write_page
    from unmask.tasks.comparison import compare as run
    from unmask.tasks.comparison import outcome_as_json
    from unmask.tasks.comparison_report import page, tables
    from unmask.tasks.comparison_settings import ComparisonSettings
    from unmask.training.runs import only_run

    settings = ComparisonSettings.load(recipe, data=data or (), steps=steps, seeds=seeds)
    device = machine.prepare()
    with only_run(out):
        shards, tokenizer = prepare_data(settings.pretraining, list(settings.data), out, settings.tokenizer)
        assert isinstance(tokenizer, ElectraTokenizer)
        outcome = run(settings, shards, tokenizer, out, device=device)
        write_json(out / "comparison.json", outcome_as_json(outcome))
        write_page(out / "report.html", page(outcome))
    console = Console()
    for table in tables(outcome):
        print_table(table, console)
    console.print(f"report: {out / 'report.html'}", soft_wrap=True)
