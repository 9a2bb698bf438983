"""`unmask vocabulary`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from unmask.vocabulary.surgery import Surgery

Several = Parameter(consume_multiple=True, negative="", show_default=False)
Flag = Parameter(negative="", show_default=False)
REPORT = "vocabulary.html"
#: New tokens that the terminal shows; the page has more.
SHOWN = 10


def trim(
    model: str,
    inputs: Annotated[list[str], Parameter(negative="")],
    /,
    *,
    out: Path,
    vocab_size: int | None = None,
    text_column: str = "text",
    lines: Annotated[bool, Flag] = False,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Write a model with the tokens alone that a corpus uses: what it makes of them stays the same to the bit.

    OUT holds the model, its tokenizer and vocabulary.html: sizes, fertility and unknown tokens before and after.

    Args:
        model: a T5, an ELECTRA or a pair: a model directory or Hub name.
        inputs: text files (.txt), JSON lines, CSV, Parquet, compressed or not, directories or globs of these.
        out: the directory to write.
        vocab_size: keep at most this many tokens, the most frequent ones.
        text_column: column, or key of a JSON object, that holds the text.
        lines: a .txt file holds a document a line, not one alone.
        overwrite: replace an earlier result of this command.
    """
    from unmask.corpus.reading import read_texts
    from unmask.vocabulary.surgery import trim as run

    read = partial(read_texts, inputs, text_column=text_column, by_line=lines)
    _write(out, lambda place: run(model, place, read, vocab_size=vocab_size), overwrite=overwrite)


def extend(
    model: str,
    /,
    *,
    out: Path,
    tokens: Annotated[list[str] | None, Several] = None,
    from_: Annotated[list[str] | None, Parameter("--from", consume_multiple=True, negative="")] = None,
    size: int | None = None,
    on: Annotated[list[str] | None, Several] = None,
    text_column: str = "text",
    lines: Annotated[bool, Flag] = False,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Write a model with more tokens, which begin as the mean of those that stood for them.

    OUT holds the model, its tokenizer and vocabulary.html: sizes, fertility and unknown tokens before and after.

    Args:
        model: a T5, an ELECTRA or a pair: a model directory or Hub name.
        out: the directory to write.
        tokens: words that are to be one token each.
        from_: text to take tokens from, files as for `unmask vocabulary trim`: characters that the vocabulary lacks,
            then the words and parts of words that shorten the text most.
        size: how many tokens to take from --from.
        on: text to report on; default: that of --from.
        text_column: column, or key of a JSON object, that holds the text.
        lines: a .txt file holds a document a line, not one alone.
        overwrite: replace an earlier result of this command.
    """
    from unmask.corpus.reading import read_texts
    from unmask.errors import UserError
    from unmask.vocabulary.surgery import extend as run

    if not tokens and not from_:
        raise UserError(
            "nothing to add: give words with --tokens, or text with --from and how many with --size"
        )
    if (from_ is None) != (size is None) or (size is not None and size < 1):
        raise UserError(
            f"--from and --size go together: text, and how many tokens to take from it, not {size}"
        )
    read = partial(read_texts, text_column=text_column, by_line=lines)
    _write(
        out,
        lambda place: run(
            model,
            place,
            words=tokens or (),
            read=partial(read, from_) if from_ else None,
            count=size or 0,
            read_measured=partial(read, on) if on else None,
        ),
        overwrite=overwrite,
    )


def _write(out: Path, run: Callable[[Path], Surgery], *, overwrite: bool) -> None:
    from rich.console import Console

    from unmask.export.place import new_directory
    from unmask.report import print_table, write_page
    from unmask.vocabulary.presentation import surgery_page, surgery_tables

    with Console(stderr=True).status(""), new_directory(out, overwrite=overwrite, signs=[REPORT]) as place:
        done = run(place)
        write_page(place / REPORT, surgery_page(done))
    for table in surgery_tables(done, SHOWN):
        print_table(table)
    print(f"{out}; the whole report: {out / REPORT}")
