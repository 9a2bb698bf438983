"""`unmask finetune`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unmask.cli.machine import Machine
from unmask.cli.processes import Processes
from unmask.errors import UserError
from unmask.tasks.settings import FinetuneSettings, Keep


def finetune(
    task: str,
    model: str,
    *,
    out: Path,
    data: Path | None = None,
    from_scratch: Annotated[bool, Parameter(negative="")] = False,
    seeds: int = 1,
    keep: Keep = "best",
    search: int = 0,
    search_space: Path | None = None,
    processes: Processes = Processes(),  # noqa: B008 (frozen)
    machine: Machine = Machine(),  # noqa: B008 (frozen)
    settings: Annotated[FinetuneSettings, Parameter(name="*", group="Settings")] = FinetuneSettings(),  # noqa: B008
) -> None:
    """Fine-tune a model on a task; the finished model is in OUT/model.

    Args:
        task: a TOML file that names the rows' files and columns (docs/tasks.md), the name of a task that is built in
            (`unmask task list`), or for T5 a TOML file that mixes several tasks (docs/finetuning.md).
        model: a model directory or Hub name: T5 for any task, ELECTRA (of a pair, its discriminator) for those with a
            head, an ELECTRA that writes (a pair, or a generator) for text-to-text.
        out: directory of the run, or of the runs.
        data: (built-in tasks) the directory of the task's files; default: from the Hub.
        from_scratch: keep the model's shape and tokenizer but draw its weights anew, to see what
            pre-training is worth.
        seeds: runs with other seeds, of which one model is kept; those that fail are repeated.
        keep: which seed's model is kept: the best on the validation rows, or the median.
        search: trials of other settings, before the seeds; the best are used.
        search_space: a TOML file of the settings to search over and their ranges; default: the learning rate, the
            batch size and ELECTRA's layer decay.
    """
    from rich.console import Console

    from unmask.report import print_table
    from unmask.tasks.finetuning import finetune as run
    from unmask.tasks.finetuning_tables import seed_table, trial_table
    from unmask.tasks.library import find_task
    from unmask.tasks.mixture import finetune_mixture, is_mixture, load_mixture
    from unmask.tasks.models import warn_of_data
    from unmask.tasks.search import read_space
    from unmask.tasks.search import search as search_settings
    from unmask.tasks.seeds import finetune_seeds
    from unmask.training.runs import only_run

    for name, value, least in (("seeds", seeds, 1), ("search", search, 0)):
        if value < least:
            raise UserError(f"--{name} {value}: it must be at least {least}")
    if search_space is not None and not search:
        raise UserError("--search-space needs --search with the number of trials")
    if search and from_scratch:
        raise UserError("--search and --from-scratch exclude each other")
    several = search > 0 or seeds > 1
    with processes.join() as ranks, only_run(out, ranks):
        if ranks.count > 1 and (several or is_mixture(task)):
            raise UserError("--search, --seeds and mixtures run in one process: leave torchrun out")
        with ranks.first_alone():
            device = machine.prepare()
            processes.check(settings.optimiser or "adamw", device)
        if is_mixture(task):
            if several or from_scratch:
                raise UserError("--search, --seeds and --from-scratch are for one task, not for a mixture")
            mixture = load_mixture(Path(task))
            trained = finetune_mixture(mixture, model, out, settings, device=device, execution=processes)
            print(f"model: {trained}")
            return
        with ranks.first_alone():
            chosen = find_task(task, data)
            if ranks.is_first:
                warn_of_data(chosen, model)
        if search:
            space = None if search_space is None else read_space(search_space)
            place = out / "search" if seeds > 1 else out
            found = search_settings(
                chosen, model, place, settings, trials=search, space=space, device=device, execution=processes
            )
            print_table(trial_table(found), Console())
            settings = replace(found.settings, seed=settings.seed)
        if seeds > 1:
            spread = finetune_seeds(
                chosen,
                model,
                out,
                settings,
                seeds=seeds,
                keep=keep,
                device=device,
                fresh_weights=from_scratch,
                execution=processes,
            )
            print_table(seed_table(spread), Console())
        elif not search:
            run(
                chosen,
                model,
                out,
                settings,
                device=device,
                fresh_weights=from_scratch,
                ranks=ranks,
                execution=processes,
            )
        if ranks.is_first:
            print(f"model: {out / 'model'}")
