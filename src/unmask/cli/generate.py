"""`unmask generate`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from cyclopts import Parameter

from unmask.cli.flags import given, optional_flags
from unmask.cli.machine import Machine
from unmask.errors import UserError
from unmask.generation.settings import GenerationSettings
from unmask.tasks.bulk import Bulk
from unmask.tasks.texts import GivenTexts, TextFiles, find_texts
from unmask.tasks.windows import WINDOW
from unmask.tasks.writing_settings import WritingSettings

if TYPE_CHECKING:
    from unmask.tasks.writing import TextWriter

Format = Literal["txt", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)

DecodingFlags: Any = optional_flags(
    GenerationSettings,
    __name__,
    early_stopping=Literal["true", "false", "never"],
    seed=int,
    speculate=Annotated[bool, Parameter(name=("--speculate", "--copy"))],
)


def generate(
    model: str,
    inputs: list[Path] | None = None,
    /,
    *,
    text: Annotated[list[str] | None, Parameter(negative="", show_default=False)] = None,
    out: Path | None = None,
    format: Format | None = None,
    column: str | None = None,
    stream: Annotated[bool, Parameter(negative="")] = False,
    window: int | None = None,
    engine: Literal["unmask", "ctranslate2"] = "unmask",
    dtype: Literal["float32", "bfloat16", "float16", "int8"] | None = None,
    machine: Machine = Machine(),  # noqa: B008 (frozen)
    writing: Annotated[WritingSettings, Parameter(name="*", group="What T5 reads and may write")] = (
        WritingSettings()  # noqa: B008 (frozen)
    ),
    decoding: Annotated[
        DecodingFlags | None,
        Parameter(name="*", group="Decoding (default: what generation_config.json says, else as below)"),
    ] = None,
    rounds: Annotated[int | None, Parameter(group="ELECTRA", show_default=False)] = None,
    judged: Annotated[bool | None, Parameter(group="ELECTRA", show_default=False, negative="")] = None,
    revisions: Annotated[int | None, Parameter(group="ELECTRA", show_default=False)] = None,
    candidates: Annotated[int | None, Parameter(group="ELECTRA", show_default=False)] = None,
    block: Annotated[int | None, Parameter(group="ELECTRA", show_default=False)] = None,
) -> None:
    """Write text: T5 answers each text, ELECTRA continues it or, fine-tuned on pairs, answers it.

    Results go to standard output, or with --out into a file or a directory. A job with --out that was stopped,
    in whatever way, is continued by the same command.

    Args:
        model: a model directory or Hub name.
        inputs: files with a text in each line (.txt) or row (.jsonl, .csv, .tsv, each also .gz; .parquet),
            directories of these, or - for the lines of standard input.
        text: a text, instead of inputs; may be given several times.
        out: a file for all results (.txt, .jsonl), or a directory for a file of results for each input file.
        format: txt writes a line for each result; jsonl an object for each text, with its source. Default:
            what the name of --out says; in a directory jsonl for inputs that have columns, else txt.
        column: the column or key that holds the text; default: text.
        stream: print the result for one text as it is written.
        window: texts that are read, sorted by length, answered and saved together; default: 512.
        engine: what runs the model; ctranslate2 takes a directory that `unmask export ct2` wrote.
        dtype: what the model computes in; default: int8 where it is stored so, else float32.
        rounds: passes that fill the masks; default: 8.
        judged: between the rounds the discriminator says what stays.
        revisions: how often the worst quarter is written again; default: 2.
        candidates: texts that are written for each text, of which the discriminator takes the best; default: as
            many as there are results.
        block: tokens that are filled at a time, from left to right, for long texts; default: all.
    """
    _keep_few_kernels()
    from unmask.tasks.generation import LineWriter
    from unmask.tasks.writing import job_settings, load_writer

    source = _source(inputs, text, column, out)
    place = _place(out, format, source)
    options = _options(
        decoding, rounds=rounds, judged=judged, revisions=revisions, candidates=candidates, block=block
    )
    if stream:
        _check_stream(source, out, format, writing)
    elif out is not None and engine == "unmask":
        # A job that is continued has to draw what it would have drawn.
        options.setdefault("seed", 0)
    writer = load_writer(model, writing, engine=engine, device=machine.prepare(), dtype=dtype, **options)
    if stream:
        _print_as_written(writer, next(iter(source)))
        return
    lines = LineWriter(writer, place.format, constrained=writing.is_constrained)
    settings: dict[str, Any] = {}
    if out is not None:
        settings = {
            "engine": engine,
            "format": place.format,
            "dtype": dtype or "default",
            "window": window,
            "options": options,
            **job_settings(model, writing),
        }
    job = Bulk(
        answer=lines,
        settings=settings,
        lines_each=lines.lines_each,
        window=WINDOW if window is None else window,
        label="generate",
    )
    if out is None:
        for line in job.lines(source):
            print(line, flush=True)
    elif place.is_directory and isinstance(source, TextFiles):
        job.to_directory(source.files, out, f".{place.format}")
    else:
        job.to_file(source, out)
    lines.say_what_was_cut()


def _keep_few_kernels() -> None:
    """Have PyTorch keep few of the kernels that oneDNN compiles, one for each number of rows.

    They hold up to a megabyte each, it keeps 1,024, and batches of texts hardly ever have as many tokens twice.
    """
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(name, "16")


def _source(
    inputs: list[Path] | None, text: list[str] | None, column: str | None, out: Path | None
) -> GivenTexts | TextFiles:
    if (not inputs) == (not text):
        raise UserError("give inputs (files, directories or -), or texts with --text: one of the two")
    if text:
        return GivenTexts(text)
    return TextFiles(find_texts(inputs or [], column, results=out))


@dataclass(frozen=True)
class _Place:
    """Where the results go, and in which format."""

    format: Format
    is_directory: bool = False


def _place(out: Path | None, format: Format | None, source: GivenTexts | TextFiles) -> _Place:
    if out is None:
        return _Place(format or "txt")
    suffix = out.suffix.removeprefix(".")
    if suffix in FORMATS and not out.is_dir():
        return _Place(format or suffix)
    if suffix and format is not None and not out.is_dir():
        return _Place(format)
    if suffix and not out.is_dir():
        raise UserError(
            f"--out {out}: a file ends in .txt or .jsonl (or give --format), a directory in neither"
        )
    if not isinstance(source, TextFiles) or not source.again:
        raise UserError(f"--out {out} is a directory, {source.name} are no files: name a .txt or .jsonl file")
    columns = any(file.has_columns for file in source.files)
    return _Place(format or ("jsonl" if columns else "txt"), is_directory=True)


def _options(decoding: Any, **electra: int | None) -> dict[str, Any]:
    """The options that were given, in the library's values."""
    options = given(decoding)
    if "early_stopping" in options:
        options["early_stopping"] = {"true": True, "false": False}.get(options["early_stopping"], "never")
    return options | {name: value for name, value in electra.items() if value is not None}


def _check_stream(
    source: GivenTexts | TextFiles, out: Path | None, format: Format | None, writing: WritingSettings
) -> None:
    if not isinstance(source, GivenTexts) or len(source.texts) > 1:
        raise UserError("--stream shows one text as it is written: give one --text")
    for name, asked in {"--out": out, "--format": format, "--scores": writing.scores}.items():
        if asked:
            raise UserError(f"--stream prints the bare text: leave {name} out")


def _print_as_written(writer: TextWriter, text: str) -> None:
    for piece in writer.stream(text):
        print(piece, end="", flush=True)
    print()
