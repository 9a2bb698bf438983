"""`unmask pretrain`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from cyclopts import Parameter

from unmask.cli.machine import Machine
from unmask.training.recipe import PretrainRecipe


def _as_flags(recipe: type[Any]) -> type[Any]:
    """The recipe's fields as flags that may be left out: those keep the recipe's value."""
    hints = get_type_hints(recipe)
    flags = dataclasses.make_dataclass(
        "RecipeFlags",
        [
            (
                field.name,
                Annotated[hints[field.name] | None, Parameter(show_default=False)],
                dataclasses.field(default=None, kw_only=True),
            )
            for field in dataclasses.fields(recipe)
        ],
        namespace={"__doc__": recipe.__doc__},
    )
    # What make_dataclass says ("types") marks standard-library types, which cyclopts leaves alone.
    flags.__module__ = __name__
    return flags


RecipeFlags: Any = _as_flags(PretrainRecipe)


def pretrain(
    recipe: str,
    *,
    data: Annotated[list[str], Parameter(consume_multiple=True, negative="")],
    out: Path,
    tokenizer: str | None = None,
    machine: Machine = Machine(),  # noqa: B008 (frozen)
    settings: Annotated[
        RecipeFlags | None, Parameter(name="*", group="Recipe settings (each overrides the recipe's)")
    ] = None,
) -> None:
    """Pre-train a model from raw text; the same command again continues a run that was stopped.

    The finished model is in OUT/model.

    Args:
        recipe: a TOML file, or the name of a shipped recipe such as t5-tiny or electra-tiny.
        data: text files (.txt, one document each), JSON lines, CSV or Parquet with a "text" column, all but
            Parquet also compressed (.gz, .zst), directories or globs of these; or one directory of packed shards.
        out: directory of the run.
        tokenizer: directory or Hub name of a tokenizer; default: the one beside the packed shards, else one
            is trained on the data.
    """
    from unmask.cli.preparing import prepare_data
    from unmask.training.pretraining import pretrain as run

    given = {} if settings is None else vars(settings)
    overrides = {name: value for name, value in given.items() if value is not None}
    chosen = PretrainRecipe.load(recipe, overrides)
    device = machine.prepare()
    shards, vocabulary = prepare_data(chosen, data, out, tokenizer)
    print(f"model: {run(chosen, shards, vocabulary, out, device=device)}")
