"""The parts of a corpus between two stages: JSON lines under zstandard, one file a task."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from unmask.corpus.ledger import Ledger
from unmask.corpus.reading import read_file
from unmask.hub import atomic_file, write_json
from unmask.text.sampling import is_validation

SUFFIX = ".jsonl.zst"
Documents = Generator[Document, None, None]


def part_name(rank: int) -> str:
    return f"{rank:05}{SUFFIX}"


@contextmanager
def written_part(path: Path) -> Iterator[IO[bytes]]:
    """A stream of JSON lines that takes its place when the block ends well: zstandard, or gzip by the name.

    The same lines give the same bytes: no time and no name of a file goes in.
    """
    import pyarrow

    with atomic_file(path) as temporary:
        if path.suffix == ".gz":
            with (
                temporary.open("wb") as file,
                gzip.GzipFile("", "wb", compresslevel=4, fileobj=file, mtime=0) as packed,
                io.BufferedWriter(packed, 1 << 20) as stream,
            ):
                yield stream
        else:
            codec = pyarrow.Codec("zstd", compression_level=1)
            with pyarrow.CompressedOutputStream(str(temporary), codec.name) as packed:
                yield packed


def write_document(stream: IO[bytes], document: Document) -> None:
    fields = {"id": document.id, "text": document.text}
    if document.metadata.get("url"):
        fields["url"] = document.metadata["url"]
    stream.write(json.dumps(fields, ensure_ascii=False).encode() + b"\n")


class ReadPart(PipelineStep):
    """The documents of the part that is this task's."""

    type = "reader"
    name = "part"

    def __init__(self, parts: list[Path]) -> None:
        super().__init__()
        self._parts = parts

    def run(self, data: None = None, rank: int = 0, world_size: int = 1) -> Documents:
        for document in read_file(self._parts[rank]):
            yield Document(document.text, document.id, metadata={"url": document.url})


class WritePart(PipelineStep):
    """Writes what arrives as the task's part, and hands it on to what signs documents."""

    type = "writer"
    name = "part"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Documents:
        with written_part(self._folder / part_name(rank)) as stream:
            for document in data:
                write_document(stream, document)
                yield document


class WriteSplits(PipelineStep):
    """Writes what arrives as the task's part of `train` and `validation`; a part without documents is no file."""

    type = "writer"
    name = "splits"

    def __init__(self, folder: Path, validation_share: float, ledger: Ledger) -> None:
        super().__init__()
        self._folder = folder
        self._share = validation_share
        self._ledger = ledger

    def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Documents:
        steps = {name: self._ledger.step(name) for name in ("train", "validation")}
        paths = {name: self._folder / name / f"part-{rank:05}.jsonl.gz" for name in steps}
        with written_part(paths["train"]) as train, written_part(paths["validation"]) as validation:
            for document in data:
                held_out = is_validation(document.text, self._share)
                step = steps["validation" if held_out else "train"]
                step.documents_out += 1
                step.characters_out += len(document.text)
                self._ledger.lengths_out[len(document.text).bit_length()] += 1
                write_document(validation if held_out else train, document)
                yield document
        for name, path in paths.items():
            if not steps[name].documents_out:
                path.unlink()


class WriteLedger(PipelineStep):
    """Ends a task: runs all steps before it, then writes what they counted."""

    type = "writer"
    name = "ledger"

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        super().__init__()
        self._folder = folder
        self._ledger = ledger

    def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Documents:
        yield from data
        write_json(self._folder / f"{rank:05}.json", self._ledger.as_json())
