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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain, compress
from operator import not_
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from unmask.errors import UserError
from unmask.hub import atomic_directory, read_json, write_json
from unmask.text.sampling import is_validation

MANIFEST = "manifest.json"
#: Where the tokenizer that made them may lie.
TOKENIZER = "tokenizer"
FORMAT = "unmask shards"
VERSION = 1
_OFFSET = np.dtype("<i8")
# Enough text to keep a tokenizer's threads busy, little enough to hold in memory.
_CHARACTERS_AT_ONCE = 1 << 20


class Encoder(Protocol):
    """What shards need of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def encode_batch(self, texts: list[str], *, add_special_tokens: bool) -> Sequence[Sequence[int]]: ...


# --- reading ---------------------------------------------------------------------------------------------


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
        self.line_starts = _mapped(directory / f"{name}.lines", _OFFSET)
        self.document_lines = _mapped(directory / f"{name}.documents", _OFFSET)
        sizes = facts["shard_tokens"]
        self._shards = [_mapped(directory / _shard_name(name, i), token_type) for i in range(len(sizes))]
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
        self.checksum = _digest_of(manifest)
        self.fingerprint: str = manifest["tokenizer"]["fingerprint"]
        self.vocab_size: int = manifest["tokenizer"]["vocab_size"]
        self.train = Split(directory, "train", manifest)
        self.validation = Split(directory, "validation", manifest)

    @classmethod
    def open(
        cls, directory: str | PathLike[str], tokenizer: Encoder | None = None, *, verify: bool = True
    ) -> Shards:
        """Open a directory that `write_shards` made.

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
    if manifest.pop("sha256", None) != _digest_of(manifest):
        raise UserError(f"{directory / MANIFEST} is damaged: its checksum differs; pack the corpus again")
    return manifest


def _check_file(path: Path, entry: Mapping[str, Any], *, contents: bool) -> None:
    try:
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise UserError(
                f"{path} is damaged: {size} bytes instead of {entry['bytes']}; pack the corpus again"
            )
        if contents and _digest_of_file(path) != entry["sha256"]:
            raise UserError(f"{path} is damaged: its checksum differs; pack the corpus again")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; pack the corpus again") from None


def _digest_of(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mapped(path: Path, dtype: np.dtype[Any]) -> np.ndarray:
    return np.memmap(path, dtype, "r").view(np.ndarray)


def _shard_name(split: str, number: int) -> str:
    return f"{split}-{number:05}.tokens"


# --- writing ---------------------------------------------------------------------------------------------


def write_shards(
    documents: Iterable[str],
    tokenizer: Encoder,
    directory: str | PathLike[str],
    *,
    validation_share: float = 0.01,
    by_line: bool = False,
    shard_tokens: int = 1 << 28,
    beside: Callable[[Path], None] | None = None,
) -> Shards:
    """Tokenise a corpus into a directory of shards, in one pass and in constant memory.

    The directory appears only when it is complete. Documents that give no token are left out. No special
    token is stored: objectives add them.

    Args:
        documents: their texts.
        tokenizer: called with batches of texts.
        directory: where to write; shards that are already there are replaced.
        validation_share: share of documents, chosen by a hash of their text, that goes to `validation`.
        by_line: tokenise the lines of a document one by one and keep where they begin, without newlines, as
            ELECTRA's example builder wants it; otherwise documents are tokenised whole, as T5 does.
        shard_tokens: tokens after which a new file is begun (with the next batch of documents).
        beside: writes the tokenizer's files into the directory that it is given, `tokenizer/` in the shards'.

    Raises:
        UserError: no document for training, a share outside [0, 1), or a directory that holds other things.
    """
    path = Path(directory)
    if path.exists() and not is_shards(path) and (path.is_file() or any(path.iterdir())):
        raise UserError(
            f"{path} exists and is not a directory of token shards: choose another place for them"
        )
    with (
        atomic_directory(path) as temporary,
        closing(_SplitWriter(temporary, "train", tokenizer, shard_tokens)) as train,
        closing(_SplitWriter(temporary, "validation", tokenizer, shard_tokens)) as validation,
    ):
        for texts in _in_batches(documents):
            held_out = [is_validation(text, validation_share) for text in texts]
            train.add(list(compress(texts, map(not_, held_out))), by_line=by_line)
            validation.add(list(compress(texts, held_out)), by_line=by_line)
        facts = {"train": train.finish(), "validation": validation.finish()}
        if not facts["train"]["documents"]:
            held = facts["validation"]["documents"]
            raise UserError(
                f"no document is left for training: all {held} fell to validation; lower its share"
                if held
                else "the corpus is empty: no document has a token"
            )
        _write_manifest(temporary, tokenizer, facts, by_line=by_line)
        if beside is not None:
            (temporary / TOKENIZER).mkdir()
            beside(temporary / TOKENIZER)
    return Shards.open(path, verify=False)


class _SplitWriter:
    """Appends the documents of one split to its files."""

    def __init__(self, directory: Path, name: str, tokenizer: Encoder, shard_tokens: int) -> None:
        self._directory = directory
        self._name = name
        self._tokenizer = tokenizer
        self._token_type = _token_type(tokenizer)
        self._shard_limit = shard_tokens
        self._shard_tokens: list[int] = []
        self._shard: BinaryIO | None = None
        self._lines = (directory / f"{name}.lines").open("wb")
        self._documents = (directory / f"{name}.documents").open("wb")
        self._counts = {"documents": 0, "lines": 0, "tokens": 0, "characters": 0}
        self._frequencies = np.zeros(tokenizer.vocab_size, np.int64)

    def add(self, texts: Sequence[str], *, by_line: bool) -> None:
        lines = [_lines_of(text) if by_line else [text] for text in texts]
        flat = list(chain.from_iterable(lines))
        if not flat:
            return
        rows = self._tokenizer.encode_batch(flat, add_special_tokens=False)
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        tokens = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))
        if not len(tokens):
            return
        self._count(tokens)
        text_of_line = np.repeat(np.arange(len(texts)), [len(own) for own in lines])[lengths > 0]
        lengths = lengths[lengths > 0]
        kept_texts, first_lines = np.unique(text_of_line, return_index=True)
        starts = self._counts["tokens"] + np.cumsum(lengths) - lengths
        self._lines.write(starts.astype(_OFFSET).tobytes())
        self._documents.write((self._counts["lines"] + first_lines).astype(_OFFSET).tobytes())
        self._open_shard().write(tokens.astype(self._token_type).tobytes())
        self._shard_tokens[-1] += len(tokens)
        self._counts["tokens"] += len(tokens)
        self._counts["lines"] += len(lengths)
        self._counts["documents"] += len(kept_texts)
        self._counts["characters"] += sum(len(texts[text]) for text in kept_texts)

    def _count(self, tokens: np.ndarray) -> None:
        if tokens.min() < 0 or tokens.max() >= len(self._frequencies):
            raise ValueError(f"the tokenizer gave an id outside 0 … {len(self._frequencies) - 1}")
        self._frequencies += np.bincount(tokens, minlength=len(self._frequencies))

    def _open_shard(self) -> BinaryIO:
        if self._shard is None or self._shard_tokens[-1] >= self._shard_limit:
            if self._shard is not None:
                self._shard.close()
            self._shard = (self._directory / _shard_name(self._name, len(self._shard_tokens))).open("wb")
            self._shard_tokens.append(0)
        return self._shard

    def finish(self) -> dict[str, Any]:
        """Close the files and give the manifest's facts."""
        self._lines.write(np.array(self._counts["tokens"], _OFFSET).tobytes())
        self._documents.write(np.array(self._counts["lines"], _OFFSET).tobytes())
        self.close()
        entropy = _entropy(self._frequencies)
        return {**self._counts, "unigram_entropy": entropy, "shard_tokens": self._shard_tokens}

    def close(self) -> None:
        for file in (self._lines, self._documents, self._shard):
            if file is not None:
                file.close()


def _write_manifest(directory: Path, tokenizer: Encoder, splits: Mapping[str, Any], *, by_line: bool) -> None:
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "tokenizer": {"fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size},
        "token_type": _token_type(tokenizer).str,
        "by_line": by_line,
        "splits": dict(splits),
        "files": {
            file.name: {"bytes": file.stat().st_size, "sha256": _digest_of_file(file)}
            for file in sorted(directory.iterdir())
        },
    }
    write_json(directory / MANIFEST, {**manifest, "sha256": _digest_of(manifest)})


def _token_type(tokenizer: Encoder) -> np.dtype[Any]:
    return np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")


def _in_batches(documents: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in documents:
        batch.append(text)
        characters += len(text)
        if characters >= _CHARACTERS_AT_ONCE:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _lines_of(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def _entropy(frequencies: np.ndarray) -> float:
    """-Σ p ln p of the distribution that the frequencies make, in nats."""
    seen = frequencies[frequencies > 0]
    shares = seen / max(seen.sum(), 1)
    return float(-(shares * np.log(shares)).sum()) + 0.0
