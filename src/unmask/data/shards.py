"""Token shards: a corpus as memory-mapped integers that can be trusted.

A directory of shards holds

- `manifest.json`: counts, the tokenizer's fingerprint, the sizes and SHA-256 of all files, and its own;
- `<split>-00000.tokens`, …: token ids, little-endian uint16 (uint32 for vocabularies above 65,536), cut into
  files between documents;
- `<split>.lines`: where each line starts among the split's tokens, and the total, little-endian int64;
- `<split>.documents`: with which line each document starts, and the number of lines, likewise;
- perhaps `tokenizer/`, the one that made them.

Splits are `train` and `validation`. Order is the corpus' own: shuffling is by index, when reading.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unmask.errors import UserError
from unmask.hub import read_json

MANIFEST = "manifest.json"
#: Where the tokenizer that made them may lie.
TOKENIZER = "tokenizer"
FORMAT = "unmask shards"
VERSION = 1
#: The type of offsets on the disk.
OFFSET = np.dtype("<i8")


class Encoder(Protocol):
    """What shards need of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def releases_gil(self) -> bool: ...

    def encode_arrays(self, texts: list[str]) -> Sequence[np.ndarray]: ...


class Split:
    """The tokens of one split, memory-mapped, with where its lines and documents begin.

    Attributes:
        name: "train" or "validation".
        by_line: whether lines were tokenised one by one, so that `line_starts` are those of the text's lines
            (blank ones left out); otherwise each document is one line.
        documents, lines, tokens, characters: counts. A split may be empty.
        unigram_entropy: of the split's own token frequencies, in nats a token: the loss of the best model
            that ignores context. 0 for an empty split.
        line_starts: (lines + 1,) int64, in tokens; the last is `tokens`.
        document_lines: (documents + 1,) int64, in lines; the last is `lines`.
    """

    def __init__(self, directory: Path, name: str, manifest: Mapping[str, Any]) -> None:
        self._origin = (directory, name, manifest)
        facts = manifest["splits"][name]
        token_type = np.dtype(manifest["token_type"])
        self.name = name
        self.by_line: bool = manifest["by_line"]
        self.documents: int = facts["documents"]
        self.lines: int = facts["lines"]
        self.tokens: int = facts["tokens"]
        self.characters: int = facts["characters"]
        self.unigram_entropy: float = facts["unigram_entropy"]
        self.line_starts = _mapped(directory / f"{name}.lines", OFFSET)
        self.document_lines = _mapped(directory / f"{name}.documents", OFFSET)
        sizes = facts["shard_tokens"]
        self._shards = [_mapped(directory / shard_name(name, i), token_type) for i in range(len(sizes))]
        self._shard_starts = np.cumsum([0, *sizes])[:-1]

    def __reduce__(self) -> tuple[Any, ...]:
        # A reading process maps the files itself; their contents do not travel.
        return Split, self._origin

    @property
    def document_starts(self) -> np.ndarray:
        """(documents + 1,) int64: where each document starts, in tokens; the last is `tokens`."""
        return self.line_starts[self.document_lines]

    def gather(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The tokens of ranges that each lie inside a document, one range after another: (total,) int32."""
        ends = np.cumsum(lengths)
        tokens = np.empty(int(ends[-1]) if len(ends) else 0, np.int32)
        shards = np.searchsorted(self._shard_starts, starts, side="right") - 1
        local = starts - self._shard_starts[shards]
        # A copy a range is several times faster than an index a token: ranges are long, indices are wide.
        columns = (shards, local, local + lengths, ends - lengths, ends)
        for shard, start, stop, to, end in zip(*(column.tolist() for column in columns), strict=True):
            tokens[to:end] = self._shards[shard][start:stop]
        return tokens


class Shards:
    """An opened directory of shards.

    Attributes:
        train, validation: the two splits.
        checksum: SHA-256 of the manifest, which holds those of all files: the identity of the data.
        fingerprint, vocab_size: of the tokenizer that made them.
    """

    def __init__(self, directory: Path, manifest: Mapping[str, Any]) -> None:
        self.directory = directory
        self.checksum = digest_of(manifest)
        self.fingerprint: str = manifest["tokenizer"]["fingerprint"]
        self.vocab_size: int = manifest["tokenizer"]["vocab_size"]
        self.train = Split(directory, "train", manifest)
        self.validation = Split(directory, "validation", manifest)

    @classmethod
    def open(
        cls, directory: str | PathLike[str], tokenizer: Encoder | None = None, *, verify: bool = True
    ) -> Shards:
        """Open a directory that `shard_writing.write_shards` made.

        Args:
            directory: where it is.
            tokenizer: refuse shards that another tokenizer made; None takes any.
            verify: read all files once and compare checksums (about 1 GB/s).

        Raises:
            UserError: no shards, a file that is missing or damaged (named), or another tokenizer.
        """
        path = Path(directory)
        manifest = _read_manifest(path)
        made_by = manifest["tokenizer"]["fingerprint"]
        if tokenizer is not None and made_by != tokenizer.fingerprint:
            raise UserError(
                f"{path} was made with another tokenizer (fingerprint {made_by[:16]}, this one has "
                f"{tokenizer.fingerprint[:16]}): pack the corpus again, or use the tokenizer it was made with"
            )
        for name, entry in manifest["files"].items():
            _check_file(path / name, entry, contents=verify)
        return cls(path, manifest)


def is_shards(path: str | PathLike[str]) -> bool:
    """Whether a path looks like a directory of shards (its manifest says so), whole or damaged."""
    try:
        return (Path(path) / MANIFEST).is_file() and _read_manifest(Path(path))["format"] == FORMAT
    except UserError:
        return False


def _read_manifest(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise UserError(f"{directory} is not a directory of token shards")
    manifest = read_json(directory / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise UserError(f"{directory / MANIFEST} does not describe token shards")
    if manifest.get("version", VERSION) != VERSION:
        raise UserError(
            f"{directory / MANIFEST} is of version {manifest['version']}, this unmask reads {VERSION}: "
            "pack the corpus again"
        )
    if manifest.pop("sha256", None) != digest_of(manifest):
        raise UserError(f"{directory / MANIFEST} is damaged: its checksum differs; pack the corpus again")
    return manifest


def _check_file(path: Path, entry: Mapping[str, Any], *, contents: bool) -> None:
    try:
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise UserError(
                f"{path} is damaged: {size} bytes instead of {entry['bytes']}; pack the corpus again"
            )
        if contents and digest_of_file(path) != entry["sha256"]:
            raise UserError(f"{path} is damaged: its checksum differs; pack the corpus again")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; pack the corpus again") from None


def token_type_for(tokenizer: Encoder) -> np.dtype[Any]:
    """The type of its ids on the disk: uint16 where all fit."""
    return np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")


def digest_of(manifest: Mapping[str, Any]) -> str:
    """SHA-256 (hexadecimal) of a manifest without its own."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file's contents."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mapped(path: Path, dtype: np.dtype[Any]) -> np.ndarray:
    return np.memmap(path, dtype, "r").view(np.ndarray)


def shard_name(split: str, number: int) -> str:
    """What a split's file of tokens is called."""
    return f"{split}-{number:05}.tokens"
