"""`unmask show-batch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from unmask.cli.flags import given, optional_flags
from unmask.training.recipe import PretrainRecipe

RecipeFlags: Any = optional_flags(PretrainRecipe, __name__)


def show_batch(
    recipe: str,
    /,
    *,
    data: Path,
    batch: int = 0,
    examples: int = 4,
    tokenizer: str | None = None,
    settings: Annotated[
        RecipeFlags | None, Parameter(name="*", group="Recipe settings (each overrides the recipe's)")
    ] = None,
) -> None:
    """Show the examples of a pre-training batch as the model sees them: the very ones of a run with this recipe.

    Args:
        recipe: a TOML file, or the name of a shipped recipe such as t5-tiny or electra-tiny.
        data: a directory of shards: what `unmask pack` wrote, or data/ in a run.
        batch: its number; a run trains on batch 0 first.
        examples: how many of them to show.
        tokenizer: directory or Hub name; default: the one in the shards, or beside them in a run.
    """
    from rich.console import Console
    from rich.text import Text

    from unmask.cli.preparing import TOKENIZER, prepare_data
    from unmask.errors import UserError
    from unmask.training.examples import batch_examples

    for name, value, least in (("--batch", batch, 0), ("--examples", examples, 1)):
        if value < least:
            raise UserError(f"{name} {value}: it must be at least {least}")
    if not (data / "manifest.json").is_file():
        raise UserError(f"{data} is no directory of shards: make one with `unmask pack`")
    beside = data.parent / TOKENIZER
    if tokenizer is None and not (data / TOKENIZER).is_dir() and beside.is_dir():
        tokenizer = str(beside)
    chosen = PretrainRecipe.load(recipe, given(settings))
    shards, vocabulary = prepare_data(chosen, [str(data)], data, tokenizer)
    console = Console()
    for number, example in enumerate(batch_examples(chosen, shards, vocabulary, batch)[:examples]):
        for name, text in example.items():
            label = Text(f"{number} {name}: ", style="bold")
            console.print(label + Text(text), soft_wrap=True)
        console.print()
