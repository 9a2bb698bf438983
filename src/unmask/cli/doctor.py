"""`unmask doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from unmask.cli.flags import given, optional_flags
from unmask.cli.machine import Machine
from unmask.training.recipe import PretrainRecipe

RecipeFlags: Any = optional_flags(PretrainRecipe, __name__)


def doctor(
    recipe: str,
    *,
    data: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    tokenizer: str | None = None,
    out: Path = Path(),
    checkpoint_activations: Annotated[bool, Parameter(negative="")] = False,
    compile: Annotated[bool, Parameter(negative="")] = False,
    machine: Machine = Machine(),  # noqa: B008 (frozen)
    settings: Annotated[
        RecipeFlags | None, Parameter(name="*", group="Recipe settings (each overrides the recipe's)")
    ] = None,
) -> None:
    """Say before a run what it needs, how long it takes on this machine, and what is likely wrong with it.

    Some steps are made, as the run will make them, and forgotten.

    Args:
        recipe: a TOML file, or the name of a shipped recipe such as t5-tiny or electra-tiny.
        data: what it will read, packed by `unmask pack`: one directory, or several as NAME=DIR; default: made-up text,
            for speed and memory alone.
        tokenizer: as of `unmask pretrain`.
        out: where the run will be, for the room on that disk.
        checkpoint_activations, compile: as of `unmask pretrain`.
    """
    from unmask.cli.preparing import named_corpora, prepare_data, prepare_mixture
    from unmask.data.shards import is_shards
    from unmask.errors import UserError
    from unmask.report import Table, print_table
    from unmask.training.doctor import examine
    from unmask.training.settings import Execution

    chosen = PretrainRecipe.load(recipe, given(settings))
    device = machine.prepare()
    execution = Execution(checkpoint_activations=checkpoint_activations, compile=compile)
    corpora = None if data is None else named_corpora(data)
    read: Any = None
    vocabulary: Any = None
    if corpora is not None:
        read, vocabulary = prepare_mixture(chosen, corpora, tokenizer)
    elif data is not None:
        if len(data) != 1 or not is_shards(data[0]):
            raise UserError(
                f"--data {' '.join(data)}: the doctor reads packed shards; make them with `unmask pack`"
            )
        read, vocabulary = prepare_data(chosen, data, out, tokenizer)
    findings = examine(chosen, read, vocabulary, out, device=device, execution=execution)
    print_table(Table(f"{recipe} on {device.type}", ["", ""], [[*fact] for fact in findings.facts.items()]))
    for warning in findings.warnings:
        print(f"warning: {warning}")
    if not findings.warnings:
        print("nothing looks wrong")
