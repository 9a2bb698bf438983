"""`unmask tokenizer train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def train(
    data: Annotated[list[str], Parameter(negative="")],
    /,
    *,
    kind: Literal["unigram", "wordpiece"],
    vocab_size: int,
    out: Path,
    lowercase: bool = True,
) -> None:
    """Train a tokenizer on raw text.

    Args:
        data: text files, JSON lines, CSV, Parquet, directories or globs of these, as for `unmask pretrain`.
        kind: unigram for T5 (SentencePiece, keeps every text exactly), wordpiece for ELECTRA.
        vocab_size: pieces; T5's 100 sentinels come on top.
        out: directory for the tokenizer's files.
        lowercase: (wordpiece) fold case and accents.
    """
    from unmask.corpus.reading import read_documents
    from unmask.electra.tokenizer import ElectraTokenizer
    from unmask.t5.tokenizer import T5Tokenizer

    texts = (document.text for document in read_documents(data))
    made: T5Tokenizer | ElectraTokenizer
    if kind == "unigram":
        made = T5Tokenizer.train(texts, vocab_size)
    else:
        made = ElectraTokenizer.train(texts, vocab_size, lowercase=lowercase)
    made.save_pretrained(out)
    print(f"{made.vocab_size:,} ids in {out}")
