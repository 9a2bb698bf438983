"""`unmask corpus`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

Several = Parameter(consume_multiple=True, negative="")
Switch = Parameter(negative="", show_default=False)


def corpus(
    inputs: Annotated[list[str], Parameter(negative="")],
    /,
    *,
    out: Path,
    clean: str = "none",
    repair: Annotated[bool, Switch] = False,
    exact_duplicates: Annotated[bool, Switch] = False,
    near_duplicates: Annotated[bool, Switch] = False,
    duplicate_lines: Annotated[bool, Switch] = False,
    language: str | None = None,
    bad_words: Path | None = None,
    against: Annotated[list[str] | None, Several] = None,
    without: Annotated[list[str] | None, Several] = None,
    validation_share: float | None = None,
    text_column: str = "text",
    lines: Annotated[bool, Switch] = False,
    corrupt: Literal["stop", "skip"] = "stop",
    workers: int | None = None,
) -> None:
    """Clean raw text into documents to train on; the same command again continues a run that was stopped.

    OUT/train and OUT/validation hold the documents (gzipped JSON lines, which `unmask pretrain --data OUT`
    reads), OUT/report.html what each step dropped, with samples, OUT/corpus.json its numbers.

    Args:
        inputs: text files (.txt), JSON lines, CSV, Parquet, compressed or not, directories or globs of these.
        out: directory of the corpus.
        clean: c4, fineweb, none, or a TOML file: the steps in their order, and their settings.
        repair: put wrongly decoded text right.
        exact_duplicates: drop documents with the text of an earlier one.
        near_duplicates: keep one of documents that are nearly the same.
        duplicate_lines: drop lines that an earlier document has, or the same one further up.
        language: keep documents of this language alone (en, de, zh-cn, …).
        bad_words: drop documents with a word of this list, a file with one a line.
        against: drop documents that share 13 words in a row with these files of evaluations.
        without: steps of CLEAN to leave out.
        validation_share: share of documents, by a hash of their text, for OUT/validation; default: 0.01.
        text_column: column, or key of a JSON object, that holds the text.
        lines: a .txt file holds a document a line, not one alone.
        corrupt: what a file that cannot be read does: stop the run, or be left out and named.
        workers: processes; default: one for each core this process may use.
    """
    import os

    from rich.console import Console

    from unmask.corpus.recipe import CorpusRecipe
    from unmask.errors import MissingExtraError, UserError
    from unmask.report import print_table, write_page

    try:
        from unmask.corpus import presentation
        from unmask.corpus.executors import on_this_machine
        from unmask.corpus.pipeline import make_corpus
        from unmask.corpus.reading import Layout
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("unmask"):
            raise
        raise MissingExtraError("unmask corpus", "corpus") from None

    switches = {
        "repair": repair,
        "exact-duplicates": exact_duplicates,
        "near-duplicates": near_duplicates,
        "duplicate-lines": duplicate_lines,
        "language": language is not None,
        "bad-words": bad_words is not None,
        "decontaminate": against is not None,
    }
    settings = {
        "language": language,
        "bad_words": bad_words,
        "against": against,
        "validation_share": validation_share,
    }
    recipe = CorpusRecipe.load(
        clean,
        add=[step for step, is_on in switches.items() if is_on],
        without=without or (),
        overrides={name: value for name, value in settings.items() if value is not None},
    )
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    if workers < 1:
        raise UserError(f"--workers {workers}: it must be at least 1")
    layout = Layout(text_column, lines)
    try:
        with on_this_machine(workers) as execute:
            made = make_corpus(inputs, out, recipe, execute, layout=layout, skip_corrupt=corrupt == "skip")
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped: the same command continues from here") from None
    write_page(out / "report.html", presentation.page(made))
    console = Console()
    print_table(presentation.step_table(made), console)
    print_table(presentation.rule_table(made), console)
    if made.ledger.languages:
        print_table(presentation.language_table(made.ledger), console)
    if made.ledger.skipped:
        print_table(presentation.skipped_table(made.ledger), console)
    print_table(presentation.split_table(made.ledger), console)
    console.print(f"report: {out / 'report.html'}", soft_wrap=True)
