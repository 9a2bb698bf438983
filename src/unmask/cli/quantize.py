"""`unmask quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from unmask.cli.machine import Machine
from unmask.errors import UserError

#: Rows that are measured.
SAMPLE = 256
#: Products and differing texts that the terminal shows; the page has more.
SHOWN = 5


def quantize(
    model: str,
    /,
    *,
    out: Path,
    on: Path | None = None,
    dtype: Literal["int8", "bfloat16"] = "int8",
    keep: Annotated[list[str] | None, Parameter(negative="", show_default=False)] = None,
    keep_above: float | None = None,
    sample: int = SAMPLE,
    source: str | None = None,
    target: str | None = None,
    overwrite: bool = False,
    threads: int | None = None,
) -> None:
    """Write a model in low precision, and report what that costs on a sample.

    Args:
        model: a model directory or Hub name: a T5 that writes, an ELECTRA that classifies texts or tokens, or a
            discriminator.
        out: the directory to write: the model, its tokenizer, quantization.json and, with --on, report.html.
        on: what to measure on: a file with a source in each row, and a target (.jsonl, .csv, .tsv, .parquet), or a
            task's .toml.
        dtype: int8, which unmask alone reads, or bfloat16.
        keep: a product that stays bfloat16 in an int8 model, such as "decoder.*.feed_forward.down"; may be given
            several times.
        keep_above: so does a product that loses more than this share of its output on the rows; default: 0.05.
        sample: rows to measure, spread over the file.
        source: the column of sources; default: source.
        target: the column of targets; default: target, if there is one.
        overwrite: replace an earlier result of this command.
        threads: CPU threads; default: one for each core this process may use.
    """
    from rich.console import Console

    from unmask.export.presentation import size_line, tables, write_report
    from unmask.export.quantization import quantize as run
    from unmask.hub import find_model
    from unmask.report import print_table
    from unmask.tasks.models import family_of
    from unmask.tasks.samples import read_sample

    if sample < 1:
        raise UserError(f"--sample {sample}: it must be at least 1")
    Machine("cpu", threads).prepare()
    rows = None
    if on is not None:
        family = family_of(find_model(model))
        rows = read_sample(on, family=family, source=source, target=target, limit=sample)
    with Console(stderr=True).status("") as status:
        found = run(
            model,
            out,
            dtype=dtype,
            sample=rows,
            keep=keep or [],
            keep_above=keep_above,
            overwrite=overwrite,
            say=status.update,
        )
    if found.costs:
        write_report(out / "report.html", found)
        for table in tables(found, SHOWN):
            print_table(table)
    print(size_line(found))
    print(out)
