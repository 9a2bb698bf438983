"""`unmask check`."""

from __future__ import annotations

from pathlib import Path


def check(task: str, *, data: Path | None = None, model: str | None = None) -> None:
    """Say what is wrong with a task's data: empty and repeated rows, rows that training and test share, labels that
    only one split has, classes of unlike size, and how much is cut off.

    Args:
        task: the task's TOML file, or the name of one that is built in (`unmask task list`).
        data: the directory of a built-in task's files; default: from the Hub.
        model: a model whose tokenizer counts lengths; default: lengths are not looked at.
    """
    from rich.console import Console

    from unmask.report import print_table
    from unmask.tasks.checks import check_data
    from unmask.tasks.data_report import data_tables
    from unmask.tasks.library import find_task

    chosen, count = find_task(task, data), None
    if model is not None:
        from unmask.tasks.models import token_counter

        count = token_counter(chosen, model)
    found = check_data(chosen, count)
    console = Console()
    for table in data_tables(found):
        print_table(table, console)
    warnings = found.warnings()
    for line in warnings:
        console.print(f"warning: {line}", soft_wrap=True, markup=False, highlight=False)
    if not warnings:
        console.print("nothing to warn of")
