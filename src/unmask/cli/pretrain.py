"""`unmask pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from unmask.cli.flags import given, optional_flags
from unmask.cli.machine import Machine
from unmask.cli.processes import Processes
from unmask.training.recipe import PretrainRecipe

RecipeFlags: Any = optional_flags(PretrainRecipe, __name__)


def pretrain(
    recipe: str,
    *,
    data: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    out: Path | None = None,
    tokenizer: str | None = None,
    data_workers: int = 0,
    tensorboard: Annotated[bool, Parameter(negative="")] = False,
    processes: Processes = Processes(),  # noqa: B008 (frozen)
    machine: Machine = Machine(),  # noqa: B008 (frozen)
    settings: Annotated[
        RecipeFlags | None, Parameter(name="*", group="Recipe settings (each overrides the recipe's)")
    ] = None,
) -> None:
    """Pre-train a model from raw text; the same command again continues a run that was stopped.

    The finished model is in OUT/model.

    Args:
        recipe: a TOML file, the name of a shipped recipe such as t5-tiny or electra-tiny, or a run's directory, whose
            recipe it is.
        data: text files (.txt, one document each), JSON lines, CSV or Parquet with a "text" column, all but
            Parquet also compressed (.gz, .zst), directories or globs of these; or one directory of packed shards; or
            several of these as NAME=DIR, made with one tokenizer, which are mixed as the recipe says; default: what
            the run has made of its text before.
        out: directory of the run; default: RECIPE, where that is a run's directory.
        tokenizer: directory or Hub name of a tokenizer; default: the one beside the packed shards, else that of
            the checkpoint to start from, else one is trained on the data.
        data_workers: processes that make batches while the model trains; 0: a thread of this one. It changes no
            result, so a run may be continued with another number.
        tensorboard: write OUT/tensorboard as it goes, for `tensorboard --logdir OUT`.
    """
    from unmask.cli.preparing import named_corpora, prepare_data, prepare_mixture
    from unmask.errors import UserError
    from unmask.training.board import check_installed
    from unmask.training.pretraining import pretrain as run
    from unmask.training.runs import only_run

    if out is None:
        if not Path(recipe).is_dir():
            raise UserError("--out is missing: name a directory for the run")
        out = Path(recipe)
    if data_workers < 0:
        raise UserError(f"--data-workers {data_workers}: it must not be negative")
    with processes.join() as ranks, only_run(out, ranks):
        with ranks.first_alone():
            if tensorboard:
                check_installed()
            chosen = PretrainRecipe.load(recipe, given(settings))
            device = machine.prepare()
            processes.check(chosen.optimiser, device)
            corpora = None if data is None else named_corpora(data)
            read, vocabulary = (
                prepare_data(chosen, data, out, tokenizer)
                if corpora is None
                else prepare_mixture(chosen, corpora, tokenizer)
            )
        model = run(
            chosen,
            read,
            vocabulary,
            out,
            device=device,
            data_workers=data_workers,
            tensorboard=tensorboard,
            ranks=ranks,
            execution=processes,
        )
        if ranks.is_first:
            print(f"model: {model}")
