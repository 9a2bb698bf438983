"""Files of text into shards, as `unmask pack` and `unmask pretrain` do it: a progress line, continued if stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from unmask.corpus.reading import Layout, file_identity, input_files, read_file
from unmask.data.shard_writing import Files, write_shards
from unmask.data.shards import Shards
from unmask.text.tokenizer import Tokenizer
from unmask.training.progress import Progress

_MB = 1_000_000


def pack_files(
    inputs: list[str],
    tokenizer: Tokenizer,
    out: Path,
    *,
    layout: Layout = Layout(),  # noqa: B008 (frozen)
    workers: int | None = None,
    **settings: Any,
) -> Shards:
    """Tokenise files into shards; a call that was stopped is continued by the same call.

    Args:
        inputs: files, directories and globs.
        workers: as for `write_shards`; None: one for each core that this process may use, for as little as a part none.
        settings: others of `write_shards`.

    Raises:
        UserError: as `write_shards`; inputs that cannot be read.
        KeyboardInterrupt: says that the same command continues.
    """
    files = input_files(inputs)
    sizes = [file.stat().st_size for file in files]
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if sum(sizes) > _MB else 1
    with Progress("packing, MB of input", 0, max(1, sum(sizes) // _MB), "characters") as progress:
        meter = _Meter(sizes, progress)

        def texts(number: int) -> Iterator[str]:
            meter.at(number, 0)
            for document in read_file(files[number], layout, lambda done: meter.at(number, done)):
                yield document.text
            meter.at(number, sizes[number])

        sources = [partial(texts, number) for number in range(len(files))]
        corpus = Files(sources, _identity(files, layout))
        try:
            return write_shards(corpus, tokenizer, out, workers=workers, told=meter.tokenised, **settings)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("packing: stopped; the same command continues from here") from None


def _identity(files: list[Path], layout: Layout) -> str:
    facts = [[file_identity(file) for file in files], layout.text_column, layout.by_line]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


class _Meter:
    """Keeps the progress line: how far the files were read, and how much was tokenised."""

    def __init__(self, sizes: list[int], progress: Progress) -> None:
        self._before = [sum(sizes[:number]) for number in range(len(sizes))]
        self._progress = progress
        self._is_first = True

    def at(self, number: int, done: int) -> None:
        """So many bytes of a file were read."""
        steps = (self._before[number] + done) // _MB - self._progress.done
        if self._is_first:
            # Files that an earlier call has done.
            self._progress.skip(self._before[number] // _MB)
            self._is_first = False
        elif steps > 0:
            self._progress.advance(0, steps)

    def tokenised(self, characters: int) -> None:
        self._progress.advance(characters, 0)
        self._progress.show({})
