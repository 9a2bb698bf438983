"""`unmask predict`."""

from __future__ import annotations

from pathlib import Path

from unmask.cli.machine import Machine
from unmask.errors import UserError


def predict(
    task: str,
    model: str,
    inputs: list[Path],
    /,
    *,
    out: Path | None = None,
    data: Path | None = None,
    window: int | None = None,
    machine: Machine = Machine(),  # noqa: B008 (frozen)
) -> None:
    """Answer the rows of files of any size with a model that has learnt a task, in their order.

    Answers go to standard output, or with --out into a file or a directory. A job with --out that was stopped, in
    whatever way, is continued by the same command.

    Args:
        task: the task's TOML file, or the name of one that is built in.
        model: a fine-tuned model directory or Hub name.
        inputs: files with the task's source columns (.jsonl, .csv, .tsv, each also .gz; .parquet), of a task with one
            column also lines (.txt); directories of these, or - for the lines of standard input.
        out: a file for all answers: .txt, a line for each, or .jsonl, an object with the columns that were read; or a
            directory for a file of objects for each input file.
        data: (built-in tasks) the directory of the task's files.
        window: rows that are read, sorted by length, answered and saved together; default: 512.
    """
    from dataclasses import asdict

    from unmask.hub import find_model
    from unmask.tasks.bulk import Bulk
    from unmask.tasks.inputs import LinePredictor, RowFile
    from unmask.tasks.library import find_task
    from unmask.tasks.models import load_for_prediction
    from unmask.tasks.task import SPLITS
    from unmask.tasks.texts import TextFiles, find_texts
    from unmask.tasks.windows import WINDOW
    from unmask.tasks.writing import fingerprint

    chosen = find_task(task, data)
    found = find_texts(inputs, results=out)
    files = [RowFile(file.path, relative=file.relative, task=chosen) for file in found]
    source = TextFiles(files)
    kind = "txt" if out is None or out.suffix == ".txt" else "jsonl"
    if out is not None and out.suffix not in ("", ".txt", ".jsonl"):
        raise UserError(f"--out {out}: a file ends in .txt or .jsonl, a directory in neither")
    if out is not None and not out.suffix and not source.again:
        raise UserError(
            f"--out {out} is a directory, and standard input is no file: name a .txt or .jsonl file"
        )
    learner = load_for_prediction(chosen, model, device=machine.prepare())
    job = Bulk(
        answer=LinePredictor(chosen, learner, kind, source.name),
        settings={
            "task": {key: str(value) for key, value in asdict(chosen).items() if key not in SPLITS},
            "model": fingerprint(find_model(model)),
            "format": kind,
            "window": window,
        },
        window=WINDOW if window is None else window,
        label="predict",
    )
    if out is None:
        for line in job.lines(source):
            print(line, flush=True)
    elif out.suffix:
        job.to_file(source, out)
    else:
        job.to_directory(files, out, f".{kind}")
