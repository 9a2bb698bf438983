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
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Tokenise a corpus once, into shards that any number of `unmask pretrain --data OUT` runs read.

    OUT holds the tokens, where documents begin, a manifest with counts and checksums, and the tokenizer. It appears
    when it is complete. Damaged shards, and another tokenizer than theirs, are refused before training.

    Args:
        inputs: text files (.txt), JSON lines, CSV, Parquet, compressed or not, directories or globs of these.
        tokenizer: a tokenizer's or model's directory, or a Hub name. ELECTRA's tokenises line by line, T5's whole
            documents, as their pre-training reads them.
        out: directory for the shards.
        validation_share: share of documents, by a hash of their text, to measure on and not to train on.
        shard_tokens: tokens in a file, about.
        text_column: column, or key of a JSON object, that holds the text.
        lines: a .txt file holds a document a line, not one alone.
        overwrite: replace shards that are there.
    """
    from unmask.corpus.reading import read_texts
    from unmask.data.shards import is_shards, write_shards
    from unmask.electra.tokenizer import ElectraTokenizer
    from unmask.errors import UserError
    from unmask.report import Cell, Column, Table, print_table
    from unmask.vocabulary.loading import load_any_tokenizer

    if shard_tokens < 1:
        raise UserError(f"--shard-tokens {shard_tokens}: it must be at least 1")
    if is_shards(out) and not overwrite:
        raise UserError(f"{out} holds shards: replace them with --overwrite, or give another --out")
    vocabulary = load_any_tokenizer(tokenizer)
    shards = write_shards(
        read_texts(inputs, text_column=text_column, by_line=lines),
        vocabulary,
        out,
        validation_share=validation_share,
        by_line=isinstance(vocabulary, ElectraTokenizer),
        shard_tokens=shard_tokens,
        beside=vocabulary.save_pretrained,
    )
    splits = (shards.train, shards.validation)
    columns = [Column(name, numeric=True) for name in ("documents", "lines", "characters", "tokens")]
    rows: list[list[Cell]] = [[s.name, s.documents, s.lines, s.characters, s.tokens] for s in splits]
    print_table(Table(f"{out}, checksum {shards.checksum[:16]}", ["", *columns], rows))
