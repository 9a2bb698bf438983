"""`unmask finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unmask.cli.machine import Machine
from unmask.tasks.settings import FinetuneSettings


def finetune(
    task: Path,
    model: str,
    *,
    out: Path,
    from_scratch: Annotated[bool, Parameter(negative="")] = False,
    machine: Machine = Machine(),  # noqa: B008 (frozen)
    settings: Annotated[FinetuneSettings, Parameter(name="*", group="Settings")] = FinetuneSettings(),  # noqa: B008
) -> None:
    """Fine-tune a model on a task; the finished model is in OUT/model.

    Args:
        task: a TOML file that names the rows' files and columns (see docs/tasks.md).
        model: a model directory or Hub name: T5 or an ELECTRA that writes (a pair, or a generator) for
            text-to-text; ELECTRA (of a pair, its discriminator) for classification.
        out: directory of the run.
        from_scratch: keep the model's shape and tokenizer but draw its weights anew, to see what
            pre-training is worth.
    """
    from unmask.tasks.finetuning import finetune as run
    from unmask.tasks.task import load_task

    destination = run(
        load_task(task), model, out, settings, device=machine.prepare(), fresh_weights=from_scratch
    )
    print(f"model: {destination}")
