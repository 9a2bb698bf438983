"""A checkpoint with another vocabulary: trimmed to what a corpus uses, or extended by what it needs.

Rows of the embedding, and of the output matrix, move to their new ids; every other tensor stays as it is. So what a
model computes from tokens that it keeps does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from unmask import hub
from unmask.electra import vocabulary as electra
from unmask.electra.pair import DISCRIMINATOR, GENERATOR
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.nn import stored_int8
from unmask.nn.tables import rows_of
from unmask.t5 import vocabulary as t5
from unmask.t5.byte_tokenizer import ByT5Tokenizer, load_tokenizer
from unmask.t5.config import KINDS
from unmask.t5.tokenizer import T5Tokenizer
from unmask.text.measurement import Measurement
from unmask.text.surgery import Sources, Usage, choose, frequent_merges
from unmask.text.training import sample
from unmask.vocabulary.training import measured_sample

# Of the text's characters, new ones get pieces until this share is covered, as in training.
_COVERAGE = 0.9995
# Of a corpus that new tokens are taken from, drawn by hash.
_SAMPLE_BYTES = 20_000_000
_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "vocab.txt", "spiece.model")
#: generation_config.json's lists of ids; those that name a token that is gone go with it.
_ID_LISTS = ("suppress_tokens", "begin_suppress_tokens")
_BAD_WORDS = "bad_words_ids"

AnyTokenizer = T5Tokenizer | ElectraTokenizer


@dataclass(frozen=True)
class Size:
    """Of a checkpoint: ids that the tokenizer has, parameters in all and in tables of tokens, bytes of weights."""

    ids: int
    parameters: int
    token_parameters: int
    bytes: int


@dataclass(frozen=True)
class Surgery:
    """What became of a checkpoint.

    Attributes:
        model: which it was.
        sizes: before and after.
        tokenizers: before and after.
        new: pieces that came, with the tokens that stood for each.
        removed: how many went.
        passages: of the user's text, that was measured; none where none was given.
        measured: before and after; None without passages.
    """

    model: str
    sizes: tuple[Size, Size]
    tokenizers: tuple[AnyTokenizer, AnyTokenizer]
    new: Sequence[tuple[str, Sequence[str]]]
    removed: int
    passages: Sequence[str]
    measured: tuple[Measurement, Measurement] | None


class Checkpoint:
    """A model directory, or a pair of them, whose vocabulary can be changed.

    Raises:
        UserError: no such model, one of another family or without pieces (ByT5), or int8 weights.
    """

    def __init__(self, name_or_path: str) -> None:
        self.name = name_or_path
        self.directory = hub.find_model(name_or_path)
        halves = [self.directory / half for half in (GENERATOR, DISCRIMINATOR)]
        self.parts = [half for half in halves if half.is_dir()] or [self.directory]
        self.configs = [hub.read_json(part / hub.CONFIG) for part in self.parts]
        for part, config in zip(self.parts, self.configs, strict=True):
            where = str(part / hub.CONFIG)
            if stored_int8.is_marked(config, where):
                raise UserError(
                    f"{part} holds int8 weights: change the model that it was made from, then quantise"
                )
        self.tokenizer, self.family = self._tokenizer()
        for part, config in zip(self.parts, self.configs, strict=True):
            if config.get("vocab_size", 0) < self.tokenizer.vocab_size:
                raise UserError(
                    f"{part / hub.CONFIG}: vocab_size is {config.get('vocab_size')}, and the tokenizer has "
                    f"{self.tokenizer.vocab_size} ids"
                )

    def _tokenizer(self) -> tuple[AnyTokenizer, Any]:
        kind = self.configs[0].get("model_type")
        if kind in ("electra", "bert"):
            return ElectraTokenizer.from_pretrained(self.directory), electra
        if kind not in KINDS:
            raise UserError(
                f"{self.parts[0]} is of model type {kind!r}: only T5's and ELECTRA's can be changed"
            )
        tokenizer = load_tokenizer(self.directory)
        if isinstance(tokenizer, ByT5Tokenizer):
            raise UserError(f"{self.directory} reads bytes: there is no vocabulary to change")
        return tokenizer, t5

    def config_ids(self) -> set[int]:
        """Ids that the configs name: a beginning, an end, a language that is forced."""
        return {
            i
            for config in (*self.configs, *map(_generation_config, self.parts))
            for value in _named_ids(config).values()
            for i in value
        }

    def write(self, out: Path, tokenizer: AnyTokenizer, sources: Sources) -> tuple[Size, Size]:
        """Write the checkpoint with another vocabulary into a new directory.

        Args:
            sources: for each id of `tokenizer`, the old ids that its vectors are the mean of.
        """
        number = {ids[0]: new for new, ids in reversed(list(enumerate(sources))) if len(ids) == 1}
        sizes = []
        for part, config in zip(self.parts, self.configs, strict=True):
            place = out / part.relative_to(self.directory)
            weights = hub.read_weights(part)
            made = {
                name: rows_of(tensor, sources) if name.endswith(self.family.TABLES) else tensor
                for name, tensor in weights.items()
            }
            sizes.append((self._size(weights, self.tokenizer), self._size(made, tokenizer)))
            place.mkdir(parents=True, exist_ok=True)
            hub.write_weights(place / hub.WEIGHTS, made)
            changed = config | {"vocab_size": len(sources)}
            hub.write_json(place / hub.CONFIG, _renumbered(changed, number))
            if (part / hub.GENERATION_CONFIG).is_file():
                hub.write_json(place / hub.GENERATION_CONFIG, _renumbered(_generation_config(part), number))
        for part in {self.directory, *self.parts}:
            if any((part / name).is_file() for name in _TOKENIZER_FILES):
                tokenizer.save_pretrained(out / part.relative_to(self.directory))
        return _sum(before for before, _ in sizes), _sum(after for _, after in sizes)

    def _size(self, weights: Mapping[str, Tensor], tokenizer: AnyTokenizer) -> Size:
        return Size(
            tokenizer.vocab_size,
            sum(tensor.numel() for tensor in weights.values()),
            sum(tensor.numel() for name, tensor in weights.items() if name.endswith(self.family.TABLES)),
            sum(tensor.nbytes for tensor in weights.values()),
        )


def trim(
    model: str, out: Path, read: Callable[[], Iterable[str]], *, vocab_size: int | None = None
) -> Surgery:
    """Write a checkpoint with the tokens that a corpus uses.

    Texts of the corpus are tokenised as before, but for words of a WordPiece vocabulary that were unknown, which may
    become known; and what the model computes from the tokens that stay is the same to the bit. Embedding rows that
    no token has, with which models are padded, go too.

    Args:
        model: a model directory or Hub name.
        out: a new directory to write into.
        read: the corpus' texts, from the first at each call.
        vocab_size: keep at most this many ids, the most frequent; texts are cut into smaller pieces then.

    Raises:
        UserError: see `Checkpoint`; no text, or a size below what must stay.
    """
    checkpoint = Checkpoint(model)
    tokenizer, family = checkpoint.tokenizer, checkpoint.family
    usage = Usage.of(tokenizer, read())
    stays = family.indispensable(tokenizer, set(usage.characters))
    stays |= {i for i in checkpoint.config_ids() if i < tokenizer.vocab_size}
    kept = choose(usage, stays, vocab_size)
    made = family.trimmed(tokenizer, kept)
    sizes = checkpoint.write(out, made, [(i,) for i in kept])
    return _surgery(checkpoint, made, sizes, [], measured_sample(read()))


def extend(
    model: str,
    out: Path,
    *,
    words: Sequence[str] = (),
    read: Callable[[], Iterable[str]] | None = None,
    count: int = 0,
    read_measured: Callable[[], Iterable[str]] | None = None,
) -> Surgery:
    """Write a checkpoint with more tokens; the vectors of a new one are the mean of those that stood for it.

    A token that nothing stood for, such as a character that was unknown, starts with the mean of all.

    Args:
        model: a model directory or Hub name.
        out: a new directory to write into.
        words: words that are to be one token each (for T5 two: with and without a space before it).
        read: a corpus, from which tokens are taken: characters that the vocabulary lacks, then runs of tokens that
            are shortest as one.
        count: how many to take from it.
        read_measured: texts to measure on; None: the corpus, if there is one.

    Raises:
        UserError: see `Checkpoint`; nothing to add; a word that cannot be a piece.
    """
    checkpoint = Checkpoint(model)
    before, family = checkpoint.tokenizer, checkpoint.family
    steps: list[tuple[AnyTokenizer, Sources]] = [(before, [(i,) for i in range(before.vocab_size)])]

    def add(new: Sequence[tuple[str, tuple[int, ...]]]) -> None:
        if new:
            made, sources = family.extended(steps[-1][0], new)
            steps.append((made, [_joined(steps[-1][1], ids) for ids in sources]))

    add(family.pieces_of_words(before, words))
    measured = (read_measured or read or list)()
    passages = measured_sample(measured) if (read_measured or read) else []
    if read is not None:
        known = steps[-1][0].vocab_size
        texts = sample(read(), _SAMPLE_BYTES)
        characters = _covering(Usage.of(steps[-1][0], texts))
        add([(piece, ()) for piece in family.missing(steps[-1][0], characters)[:count]])
        add(_merges(steps[-1][0], family, texts, count - (steps[-1][0].vocab_size - known)))
    tokenizer, sources = steps[-1]
    if tokenizer.vocab_size == before.vocab_size:
        raise UserError(f"there is nothing to add to {model}: each of the tokens is one already")
    sizes = checkpoint.write(out, tokenizer, sources)
    new = [
        (tokenizer.convert_ids_to_tokens(i) or "", [before.convert_ids_to_tokens(old) or "" for old in ids])
        for i, ids in enumerate(sources)
        if len(ids) != 1
    ]
    return _surgery(checkpoint, tokenizer, sizes, new, passages)


def _joined(sources: Sources, ids: Sequence[int]) -> tuple[int, ...]:
    return tuple(old for i in ids for old in sources[i])


def _covering(usage: Usage) -> list[str]:
    """Characters, the most frequent first, that cover nearly all of a text."""
    counts = [(c, n) for c, n in usage.characters.items() if not c.isspace()]
    counts.sort(key=lambda item: (-item[1], item[0]))
    room = _COVERAGE * sum(n for _, n in counts)
    found = []
    for character, times in counts:
        if room <= 0:
            break
        found.append(character)
        room -= times
    return found


def _merges(
    tokenizer: AnyTokenizer, family: Any, texts: Sequence[str], count: int
) -> list[tuple[str, tuple[int, ...]]]:
    if count <= 0:
        return []
    rows = tokenizer.encode_batch(texts, add_special_tokens=False)
    runs = (run for row in rows for run in family.mergeable(tokenizer, row))
    found: dict[str, tuple[int, ...]] = {}
    for ids in frequent_merges(runs, count):
        piece = family.joined(tokenizer, ids)
        if tokenizer.convert_tokens_to_ids(piece) == tokenizer.unk_token_id:
            found.setdefault(piece, ids)
    return list(found.items())


def _surgery(
    checkpoint: Checkpoint,
    made: AnyTokenizer,
    sizes: tuple[Size, Size],
    new: Sequence[tuple[str, Sequence[str]]],
    passages: Sequence[str],
) -> Surgery:
    before = checkpoint.tokenizer
    removed = before.vocab_size + len(new) - made.vocab_size
    measured = None
    if passages:
        measured = Measurement.of(before, passages), Measurement.of(made, passages)
    return Surgery(checkpoint.name, sizes, (before, made), new, removed, passages, measured)


def _generation_config(part: Path) -> dict[str, Any]:
    path = part / hub.GENERATION_CONFIG
    return hub.read_json(path) if path.is_file() else {}


def _named_ids(config: Mapping[str, Any]) -> dict[str, list[int]]:
    """The settings that name tokens, as `pad_token_id` does, and the ids in each."""
    found = {}
    for name, value in config.items():
        ids = value if isinstance(value, list) else [value]
        if name.endswith("_token_id") and all(type(i) is int and i >= 0 for i in ids):
            found[name] = ids
    return found


def _renumbered(config: Mapping[str, Any], number: Mapping[int, int]) -> dict[str, Any]:
    """A config with its tokens' new ids; a token that the vocabulary never had keeps its number."""
    made = dict(config)
    for name, ids in _named_ids(config).items():
        new = [number.get(i, i) for i in ids]
        made[name] = new if isinstance(config[name], list) else new[0]
    for name in _ID_LISTS:
        if isinstance(config.get(name), list):
            made[name] = [number[i] for i in config[name] if i in number]
    if isinstance(config.get(_BAD_WORDS), list):
        made[_BAD_WORDS] = [
            [number[i] for i in word] for word in config[_BAD_WORDS] if all(i in number for i in word)
        ] or None
    return made


def _sum(sizes: Iterable[Size]) -> Size:
    parts = list(sizes)
    return Size(
        parts[0].ids,
        sum(part.parameters for part in parts),
        sum(part.token_parameters for part in parts),
        sum(part.bytes for part in parts),
    )
