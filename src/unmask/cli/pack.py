"""`unmask pack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

Flag = Parameter(negative="", show_default=False)


def pack(
    inputs: Annotated[list[str], Parameter(negative="")],
    /,
    *,
    tokenizer: str,
    out: Path,
    validation_share: float = 0.01,
    shard_tokens: int = 1 << 28,
    text_column: str = "text",
    lines: Annotated[bool, Flag] = False,
    workers: int | None = None,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Tokenise a corpus once, into shards that any number of `unmask pretrain --data OUT` runs read.

    OUT holds the tokens, where documents begin, a manifest with counts and checksums, and the tokenizer. It appears
    when it is complete; until then OUT.partial holds what is done, and the same command again continues from there.
    Damaged shards, and another tokenizer than theirs, are refused before training.

    Args:
        inputs: text files (.txt), JSON lines, CSV, Parquet, compressed or not, directories or globs of these.
        tokenizer: a tokenizer's or model's directory, or a Hub name. ELECTRA's tokenises line by line, T5's whole
            documents, as their pre-training reads them.
        out: directory for the shards.
        validation_share: share of documents, by a hash of their text, to measure on and not to train on.
        shard_tokens: tokens after which a new file is begun, with the next document.
        text_column: column, or key of a JSON object, that holds the text.
        lines: a .txt file holds a document a line, not one alone.
        workers: parts of the corpus at once, in threads for T5's tokenizer, else in processes; default: one for each
            core this process may use. They do not change the result.
        overwrite: replace shards that are there, and what another command left in OUT.partial.
    """
    from unmask.cli.packing import pack_files
    from unmask.corpus.reading import Layout
    from unmask.electra.tokenizer import ElectraTokenizer
    from unmask.errors import UserError
    from unmask.report import Cell, Column, Table, print_table
    from unmask.vocabulary.loading import load_any_tokenizer

    for name, value in (("--shard-tokens", shard_tokens), ("--workers", workers)):
        if value is not None and value < 1:
            raise UserError(f"{name} {value}: it must be at least 1")
    vocabulary = load_any_tokenizer(tokenizer)
    shards = pack_files(
        inputs,
        vocabulary,
        out,
        layout=Layout(text_column, lines),
        validation_share=validation_share,
        by_line=isinstance(vocabulary, ElectraTokenizer),
        shard_tokens=shard_tokens,
        beside=vocabulary.save_pretrained,
        workers=workers,
        overwrite=overwrite,
    )
    splits = (shards.train, shards.validation)
    columns = [Column(name, numeric=True) for name in ("documents", "lines", "characters", "tokens")]
    rows: list[list[Cell]] = [[s.name, s.documents, s.lines, s.characters, s.tokens] for s in splits]
    print_table(Table(f"{out}, checksum {shards.checksum[:16]}", ["", *columns], rows))
