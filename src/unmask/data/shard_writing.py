"""Writing token shards: in parts, by several workers, continued where a killed run stopped.

A corpus is cut into parts of about `PART_CHARACTERS`, between documents, in its order. A part is tokenised by itself
into a file of arrays in `OUT.partial/parts/`; its entry beside it, written once the file is on the disk, holds the
file's SHA-256 and where in the corpus the part ends, and makes it finished. While later ones are made, finished parts
are joined in their order into OUT's files. So the bytes of OUT depend neither on the number of workers nor on how often
the work was stopped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, compress, islice
from operator import not_
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from unmask import hub
from unmask.data.shards import (
    FORMAT,
    MANIFEST,
    OFFSET,
    TOKENIZER,
    VERSION,
    Encoder,
    Shards,
    digest_of,
    digest_of_file,
    is_shards,
    shard_name,
    token_type_for,
)
from unmask.errors import UserError
from unmask.locks import LOCK, clear, locked
from unmask.processes import process_pool
from unmask.text.sampling import is_validation

#: Characters of a part: what a worker does at a time, and what a killed one does again.
PART_CHARACTERS = 1 << 22
SPLITS = ("train", "validation")
_CLAIM, _DONE, _PARTS, _MADE = "claim.json", "done.json", "parts", "shards"
#: What a part holds of each split.
_ARRAYS = ("tokens", "lines", "documents")


@dataclass(frozen=True)
class Files:
    """A corpus that can be read again from any of its files on, so that its packing can be continued.

    Attributes:
        sources: for each file, in order, what gives its texts from the first on.
        identity: SHA-256 (hexadecimal) of what they are: equal only if they give the same texts.
    """

    sources: Sequence[Callable[[], Iterable[str]]]
    identity: str


def write_shards(
    documents: Iterable[str] | Files,
    tokenizer: Encoder,
    directory: str | PathLike[str],
    *,
    validation_share: float = 0.01,
    by_line: bool = False,
    shard_tokens: int = 1 << 28,
    beside: Callable[[Path], None] | None = None,
    workers: int = 1,
    overwrite: bool = True,
    told: Callable[[int], None] = lambda characters: None,
) -> Shards:
    """Tokenise a corpus into a directory of shards, in memory that does not depend on its size.

    The directory appears only when it is complete. Documents that give no token are left out. No special
    token is stored: objectives add them.

    Args:
        documents: their texts; of `Files`, a call that was stopped is continued by the same call.
        tokenizer: called with batches of texts.
        directory: where to write.
        validation_share: share of documents, chosen by a hash of their text, that goes to `validation`.
        by_line: tokenise the lines of a document one by one and keep where they begin, without newlines, as
            ELECTRA's example builder wants it; otherwise documents are tokenised whole, as T5 does.
        shard_tokens: tokens after which a new file is begun, with the next document.
        beside: writes the tokenizer's files into the directory that it is given, `tokenizer/` in the shards'.
        workers: how many parts are made at once; 1 works in this thread. Several are threads where the tokenizer
            releases Python's lock, else processes, which get it by pickling.
        overwrite: replace shards that are there, and parts of another corpus or with other settings.
        told: called with the characters of each part that was done.

    Raises:
        UserError: no document for training, a share outside [0, 1), a directory that holds other things, or
            without `overwrite` shards or other parts; another process writes them; a worker was killed.
    """
    path = Path(directory)
    is_validation("", validation_share)  # refuses a share that is none
    resumable = isinstance(documents, Files)
    corpus = documents if isinstance(documents, Files) else Files([lambda: documents], "")
    packer = _Packer(_partial(path) / _PARTS, tokenizer, validation_share, by_line)
    _check_place(path, overwrite)
    with locked(_partial(path), str(path)):
        done = _begin(path, packer.claim(corpus), overwrite=overwrite, anew=not resumable)
        if done is not None:
            return done
        try:
            joining = _Joining(_partial(path) / _MADE, packer, shard_tokens)
            _tokenise(corpus, packer, workers, told, joining)
            return _finish(path, packer, joining, beside)
        finally:
            # What cannot be continued, and what made nothing, binds nobody.
            if not resumable or not any(packer.folder.glob("*.json")):
                shutil.rmtree(_partial(path), ignore_errors=True)


# --- the directory beside ----------------------------------------------------------------------------------


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _check_place(path: Path, overwrite: bool) -> None:
    partial = _partial(path)
    if path.exists() and not is_shards(path) and (path.is_file() or any(path.iterdir())):
        raise UserError(
            f"{path} exists and is not a directory of token shards: choose another place for them"
        )
    if (partial / _CLAIM).is_file():
        return
    if partial.exists() and (not partial.is_dir() or any(_foreign(file) for file in partial.iterdir())):
        raise UserError(f"{partial} is in the way and none of ours: move it, or choose another place")
    _check_overwriting(path, overwrite)


def _check_overwriting(path: Path, overwrite: bool) -> None:
    if is_shards(path) and not overwrite:
        raise UserError(f"{path} holds shards: replace them with --overwrite, or give another --out")


def _begin(path: Path, claim: dict[str, Any], *, overwrite: bool, anew: bool) -> Shards | None:
    """See to it that parts of this claim, or none, lie beside; gives the shards if only those are left to clear."""
    partial = _partial(path)
    is_begun = (partial / _CLAIM).is_file()
    differing = hub.differences(hub.read_json(partial / _CLAIM), claim) if is_begun else "nothing"
    if not differing and (partial / _DONE).is_file() and is_shards(path):
        shards = Shards.open(path, verify=False)
        if shards.checksum == hub.read_json(partial / _DONE)["checksum"]:
            _clear(path)
            return shards
    _check_overwriting(path, overwrite)
    if differing and is_begun and not overwrite:
        raise UserError(
            f"{partial} was begun with other settings ({differing}): give those again to continue, "
            "or start over with --overwrite"
        )
    if differing or anew:
        clear(partial)
        hub.write_json(partial / _CLAIM, claim)
    (partial / _PARTS).mkdir(exist_ok=True)
    return None


def _foreign(file: Path) -> bool:
    # A writer of the claim that was killed leaves the lock and a hidden file.
    return file.name != LOCK and not file.name.startswith(f".{_CLAIM}")


def _clear(path: Path) -> None:
    # The claim goes last: without it nobody knows whose the rest is.
    clear(_partial(path), keep=[_CLAIM])
    (_partial(path) / _CLAIM).unlink()
    shutil.rmtree(_partial(path))


# --- parts -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """Documents in the order of the corpus, and where the next part begins: (file, document of it)."""

    number: int
    texts: list[str]
    end: tuple[int, int]


@dataclass(frozen=True)
class _Packer:
    """Makes parts, in whichever process."""

    folder: Path
    tokenizer: Encoder
    validation_share: float
    by_line: bool

    def claim(self, corpus: Files) -> dict[str, Any]:
        """Everything that the parts depend on."""
        return {
            "corpus": corpus.identity,
            "tokenizer": self.tokenizer.fingerprint,
            "validation_share": self.validation_share,
            "by_line": self.by_line,
            "part_characters": PART_CHARACTERS,
            "version": VERSION,
        }

    def make(self, part: _Part) -> int:
        """Write a part; gives its characters."""
        held_out = [is_validation(text, self.validation_share) for text in part.texts]
        chosen = {"train": map(not_, held_out), "validation": iter(held_out)}
        arrays: dict[str, np.ndarray] = {}
        characters = {}
        for split, mask in chosen.items():
            texts = list(compress(part.texts, mask))
            *values, characters[split] = self._tokenise(texts)
            arrays |= {f"{split}.{name}": value for name, value in zip(_ARRAYS, values, strict=True)}
        file = self.folder / f"{part.number:06}.npz"
        with hub.atomic_file(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for options
        entry = {"sha256": digest_of_file(file), "end": part.end, "characters": characters}
        hub.write_json(file.with_suffix(".json"), entry)
        return sum(map(len, part.texts))

    def _tokenise(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """(tokens, tokens of each line, lines of each document, characters), lines without tokens left out."""
        lines = [_lines_of(text) if self.by_line else [text] for text in texts]
        flat = list(chain.from_iterable(lines))
        rows = self.tokenizer.encode_arrays(flat) if flat else []
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        tokens = np.concatenate(rows) if rows else np.empty(0, np.int32)
        if len(tokens) and (tokens.min() < 0 or tokens.max() >= self.tokenizer.vocab_size):
            raise ValueError(f"the tokenizer gave an id outside 0 … {self.tokenizer.vocab_size - 1}")
        text_of_line = np.repeat(np.arange(len(texts)), [len(own) for own in lines])[lengths > 0]
        kept, line_counts = np.unique(text_of_line, return_counts=True)
        characters = sum(len(texts[text]) for text in kept)
        return tokens.astype(token_type_for(self.tokenizer)), lengths[lengths > 0], line_counts, characters

    def finished(self, number: int = 0) -> Iterator[dict[str, Any]]:
        """The entries of finished parts from a number on, to the first that is missing."""
        while (entry := self.folder / f"{number:06}.json").is_file():
            yield hub.read_json(entry)
            number += 1

    def drop_damaged(self) -> None:
        """Delete the parts that are not what their entries say."""
        for file in self.folder.iterdir():
            if file.name.startswith("."):
                file.unlink()  # of a writer that was killed
        for entry in sorted(self.folder.glob("*.json")):
            if not _is_whole(entry):
                entry.unlink()


def _is_whole(entry: Path) -> bool:
    try:
        return bool(digest_of_file(entry.with_suffix(".npz")) == hub.read_json(entry)["sha256"])
    except (OSError, UserError, KeyError):
        return False


def _lines_of(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def _tokenise(
    corpus: Files, packer: _Packer, workers: int, told: Callable[[int], None], joining: _Joining
) -> None:
    """Make the parts that are missing, and join those before the first that still is."""
    packer.drop_damaged()
    ends = [tuple(entry["end"]) for entry in packer.finished()]
    first = ends[-1] if ends else (0, 0)
    missing = (
        part
        for part in _parts(corpus.sources, first, len(ends))
        if not (packer.folder / f"{part.number:06}.json").is_file()
    )
    if workers == 1:
        for part in missing:
            told(packer.make(part))
            joining.advance()
        return
    try:
        with _pool(workers, packer) as (pool, make):
            running: set[Future[int]] = set()
            for part in missing:
                running.add(pool.submit(make, part))
                # One waits for a worker while the next is read: memory holds no more of the corpus than that.
                running = _told_of(running, told, joining, leave=workers + 1)
            _told_of(running, told, joining, leave=0)
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, perhaps because memory ran out: fewer --workers need less; "
            "the same command continues from here"
        ) from None


@contextmanager
def _pool(workers: int, packer: _Packer) -> Iterator[tuple[Executor, Callable[[_Part], int]]]:
    """Workers, and what makes a part in one of them."""
    if packer.tokenizer.releases_gil:
        # Processes would take time to start, and texts and ids would have to be handed to and fro.
        threads = ThreadPoolExecutor(workers)
        try:
            yield threads, packer.make
        finally:
            threads.shutdown(cancel_futures=True)
        return
    # The tokenizer's libraries too: importing them takes a worker as long as millions of characters.
    modules = ["unmask.data.shard_writing", type(packer.tokenizer).__module__]
    with process_pool(workers, modules, _begin_worker, packer) as pool:
        yield pool, _make_in_worker


def _told_of(
    running: set[Future[int]], told: Callable[[int], None], joining: _Joining, *, leave: int
) -> set[Future[int]]:
    """Wait until no more than so many are running, and join what is done."""
    while len(running) > leave:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            told(future.result())
        joining.advance()
    return running


def _parts(
    sources: Sequence[Callable[[], Iterable[str]]], first: tuple[int, int], number: int
) -> Iterator[_Part]:
    """The parts from a place in the corpus on, which is where part `number` begins."""
    texts: list[str] = []
    characters = 0
    for place in range(first[0], len(sources)):
        begin = first[1] if place == first[0] else 0
        for index, text in enumerate(islice(sources[place](), begin, None), begin + 1):
            texts.append(text)
            characters += len(text)
            if characters >= PART_CHARACTERS:
                yield _Part(number, texts, (place, index))
                number, texts, characters = number + 1, [], 0
    if texts:
        yield _Part(number, texts, (len(sources), 0))


_packer: _Packer | None = None


def _begin_worker(packer: _Packer) -> None:
    global _packer
    _packer = packer
    # A process is one worker: its tokenizer shall not start threads for all cores. Both libraries are asked by this.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _make_in_worker(part: _Part) -> int:
    assert _packer is not None
    return _packer.make(part)


# --- joining -----------------------------------------------------------------------------------------------


class _Joining:
    """The shards in the making, to which finished parts are appended in their order.

    Args:
        folder: where they are made, anew at each call.
    """

    def __init__(self, folder: Path, packer: _Packer, shard_tokens: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.folder = folder
        self._packer = packer
        self._writers = {name: _SplitWriter(folder, name, packer.tokenizer, shard_tokens) for name in SPLITS}
        self._parts = 0

    def advance(self) -> None:
        """Append the parts that were finished since."""
        for entry in self._packer.finished(self._parts):
            with np.load(self._packer.folder / f"{self._parts:06}.npz") as arrays:
                for name, writer in self._writers.items():
                    writer.add(*(arrays[f"{name}.{kind}"] for kind in _ARRAYS))
                    writer.characters += entry["characters"][name]
            self._parts += 1

    def finish(self) -> tuple[dict[str, Any], dict[str, Mapping[str, Any]]]:
        """Append the last parts and close the files: (the manifest's facts of each split, of each file)."""
        self.advance()
        facts = {name: writer.finish() for name, writer in self._writers.items()}
        return facts, dict(sorted(chain.from_iterable(w.files.items() for w in self._writers.values())))


def _finish(path: Path, packer: _Packer, joining: _Joining, beside: Callable[[Path], None] | None) -> Shards:
    """Complete the shards, and give them their name."""
    facts, files = joining.finish()
    made = joining.folder
    if not facts["train"]["documents"]:
        shutil.rmtree(_partial(path))
        held = facts["validation"]["documents"]
        raise UserError(
            f"no document is left for training: all {held} fell to validation; lower its share"
            if held
            else "the corpus is empty: no document has a token"
        )
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "tokenizer": {"fingerprint": packer.tokenizer.fingerprint, "vocab_size": packer.tokenizer.vocab_size},
        "token_type": token_type_for(packer.tokenizer).str,
        "by_line": packer.by_line,
        "splits": facts,
        "files": files,
    }
    checksum = digest_of(manifest)
    hub.write_json(made / MANIFEST, {**manifest, "sha256": checksum})
    if beside is not None:
        (made / TOKENIZER).mkdir()
        beside(made / TOKENIZER)
    # Killed behind the renaming, the next call finds by this that nothing is left to do.
    hub.write_json(_partial(path) / _DONE, {"checksum": checksum})
    hub.replace_directory(made, path)
    _clear(path)
    return Shards.open(path, verify=False)


class _HashedFile:
    """A file that is written once from its beginning, and what the manifest says of it."""

    def __init__(self, path: Path) -> None:
        self._stream: BinaryIO = path.open("wb")
        self._digest = hashlib.sha256()
        self._bytes = 0

    def write(self, values: np.ndarray) -> None:
        data = values.tobytes()
        self._stream.write(data)
        self._digest.update(data)
        self._bytes += len(data)

    def close(self) -> dict[str, Any]:
        self._stream.close()
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}


class _SplitWriter:
    """Appends the documents of one split to its files."""

    def __init__(self, directory: Path, name: str, tokenizer: Encoder, shard_tokens: int) -> None:
        self._directory = directory
        self._name = name
        self._token_type = token_type_for(tokenizer)
        self._shard_limit = shard_tokens
        self._shard_tokens: list[int] = []
        self._shard: _HashedFile | None = None
        self._lines = _HashedFile(directory / f"{name}.lines")
        self._documents = _HashedFile(directory / f"{name}.documents")
        self._counts = {"documents": 0, "lines": 0, "tokens": 0}
        self._frequencies = np.zeros(tokenizer.vocab_size, np.int64)
        self.characters = 0
        #: Name of a file → its size and SHA-256, when it is closed.
        self.files: dict[str, Mapping[str, Any]] = {}

    def add(self, tokens: np.ndarray, line_lengths: np.ndarray, line_counts: np.ndarray) -> None:
        """Args:
        tokens: (tokens,) of documents, one after another.
        line_lengths: (lines,) in tokens.
        line_counts: (documents,) in lines.
        """
        if not len(tokens):
            return
        line_starts = np.cumsum(line_lengths) - line_lengths
        document_lines = np.cumsum(line_counts) - line_counts
        self._lines.write((self._counts["tokens"] + line_starts).astype(OFFSET))
        self._documents.write((self._counts["lines"] + document_lines).astype(OFFSET))
        self._add_tokens(tokens, line_starts[document_lines])
        self._frequencies += np.bincount(tokens, minlength=len(self._frequencies))
        self._counts["tokens"] += len(tokens)
        self._counts["lines"] += len(line_lengths)
        self._counts["documents"] += len(line_counts)

    def _add_tokens(self, tokens: np.ndarray, starts: np.ndarray) -> None:
        """Write tokens, beginning a new file with the first document that finds the last one full."""
        begin = 0
        while begin < len(tokens):
            shard = self._open_shard()
            full = begin + self._shard_limit - self._shard_tokens[-1]
            later = starts[np.searchsorted(starts, full) :]
            end = int(later[0]) if len(later) else len(tokens)
            shard.write(tokens[begin:end].astype(self._token_type, copy=False))
            self._shard_tokens[-1] += end - begin
            begin = end

    def _open_shard(self) -> _HashedFile:
        if self._shard is None or self._shard_tokens[-1] >= self._shard_limit:
            self._close_shard()
            self._shard = _HashedFile(self._directory / shard_name(self._name, len(self._shard_tokens)))
            self._shard_tokens.append(0)
        return self._shard

    def _close_shard(self) -> None:
        if self._shard is not None:
            self.files[shard_name(self._name, len(self._shard_tokens) - 1)] = self._shard.close()

    def finish(self) -> dict[str, Any]:
        """Close the files and give the manifest's facts."""
        self._lines.write(np.array(self._counts["tokens"], OFFSET))
        self._documents.write(np.array(self._counts["lines"], OFFSET))
        self.files[f"{self._name}.lines"] = self._lines.close()
        self.files[f"{self._name}.documents"] = self._documents.close()
        self._close_shard()
        return {
            **self._counts,
            "characters": self.characters,
            "unigram_entropy": _entropy(self._frequencies),
            "shard_tokens": self._shard_tokens,
        }


def _entropy(frequencies: np.ndarray) -> float:
    """-Σ p ln p of the distribution that the frequencies make, in nats."""
    seen = frequencies[frequencies > 0]
    shares = seen / max(seen.sum(), 1)
    return float(-(shares * np.log(shares)).sum()) + 0.0
