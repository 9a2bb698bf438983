"""`unmask finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unmask.cli.machine import Machine
from unmask.cli.processes import Processes
from unmask.tasks.settings import FinetuneSettings


def finetune(
    task: str,
    model: str,
    *,
    out: Path,
    data: Path | None = None,
    from_scratch: Annotated[bool, Parameter(negative="")] = False,
    processes: Processes = Processes(),  # noqa: B008 (frozen)
    machine: Machine = Machine(),  # noqa: B008 (frozen)
    settings: Annotated[FinetuneSettings, Parameter(name="*", group="Settings")] = FinetuneSettings(),  # noqa: B008
) -> None:
    """Fine-tune a model on a task; the finished model is in OUT/model.

    Args:
        task: a TOML file that names the rows' files and columns (docs/tasks.md), or the name of a task that is built in
            (`unmask task list`).
        model: a model directory or Hub name: T5 for any task, ELECTRA (of a pair, its discriminator) for those with a
            head, an ELECTRA that writes (a pair, or a generator) for text-to-text.
        out: directory of the run.
        data: (built-in tasks) the directory of the task's files; default: from the Hub.
        from_scratch: keep the model's shape and tokenizer but draw its weights anew, to see what
            pre-training is worth.
    """
    from unmask.tasks.finetuning import finetune as run
    from unmask.tasks.library import find_task
    from unmask.tasks.models import warn_of_data

    with processes.join() as ranks:
        with ranks.first_alone():
            processes.check(settings.optimiser)
            device, chosen = machine.prepare(), find_task(task, data)
            if ranks.is_first:
                warn_of_data(chosen, model)
        destination = run(
            chosen,
            model,
            out,
            settings,
            device=device,
            fresh_weights=from_scratch,
            ranks=ranks,
            parallel=processes.parallel,
            accumulate=processes.accumulate,
        )
        if ranks.is_first:
            print(f"model: {destination}")
