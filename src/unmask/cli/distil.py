"""`unmask distil`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unmask.cli.machine import Machine
from unmask.tasks.settings import DistilSettings, FinetuneSettings


def distil(
    task: str,
    teacher: str,
    student: str,
    *,
    out: Path,
    data: Path | None = None,
    machine: Machine = Machine(),  # noqa: B008 (frozen)
    distilling: Annotated[DistilSettings, Parameter(name="*", group="Distillation")] = DistilSettings(),  # noqa: B008
    settings: Annotated[FinetuneSettings, Parameter(name="*", group="Settings")] = FinetuneSettings(),  # noqa: B008
) -> None:
    """Teach a smaller model what a fine-tuned one answers; the finished student is in OUT/model.

    An ELECTRA learns its teacher's soft labels beside the true ones, a T5 what its teacher's beam search writes for
    the training rows.

    Args:
        task: the task's TOML file, or the name of a task that is built in.
        teacher: a model that was fine-tuned on the task.
        student: a smaller model of the same family.
        out: directory of the run.
        data: (built-in tasks) the directory of the task's files; default: from the Hub.
    """
    from unmask.tasks.distillation import distil as run
    from unmask.tasks.library import find_task
    from unmask.training.runs import only_run

    with only_run(out):
        chosen = find_task(task, data)
        destination = run(chosen, teacher, student, out, settings, distilling, device=machine.prepare())
        print(f"model: {destination}")
