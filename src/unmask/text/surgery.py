"""Which pieces stay and which come: what both kinds of vocabulary share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from unmask.errors import UserError
from unmask.text.tokenizer import Tokenizer

#: For each id of a new vocabulary, the old ids that it is made from: one that was kept, several that it joins, none
#: where nothing stood for it.
Sources = list[tuple[int, ...]]

#: Single characters that stay whatever a corpus uses.
ASCII = {chr(code) for code in range(0x21, 0x7F)}

# Characters that are encoded at once: enough to keep all threads busy.
_AT_ONCE = 1 << 20
# Where the characters that stand for ids in training begin: none of them is a space or a surrogate.
_FIRST = 0x20000


@dataclass(frozen=True)
class Usage:
    """What a text uses of a vocabulary.

    Attributes:
        counts: (vocab_size,) int64, how often each id stands in it.
        characters: of the text as the vocabulary sees it, and how often.
    """

    counts: np.ndarray
    characters: Counter[str]

    @classmethod
    def of(cls, tokenizer: Tokenizer, texts: Iterable[str]) -> Usage:
        """Raises:
        UserError: there is no text.
        """
        counts = np.zeros(tokenizer.vocab_size, np.int64)
        characters = Counter[str]()
        for batch in _batches(texts):
            rows = tokenizer.encode_batch(batch, add_special_tokens=False)
            counts += np.bincount(np.fromiter(chain.from_iterable(rows), np.int64), minlength=len(counts))
            for text in batch:
                characters.update(tokenizer.normalize(text))
        if not counts.any():
            raise UserError("there is no text to choose a vocabulary by")
        return cls(counts, characters)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch, size = list[str](), 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def choose(usage: Usage, indispensable: set[int], limit: int | None) -> list[int]:
    """The ids to keep, ascending: the indispensable ones and those in use, the most frequent where there are too many.

    Raises:
        UserError: the limit is below what is indispensable.
    """
    used = sorted(
        set(np.flatnonzero(usage.counts).tolist()) - indispensable, key=lambda i: (-usage.counts[i], i)
    )
    if limit is not None and limit < len(indispensable):
        raise UserError(
            f"vocab_size {limit} is too small: special tokens and single characters alone are {len(indispensable)}"
        )
    room = len(used) if limit is None else limit - len(indispensable)
    return sorted({*indispensable, *used[:room]})


def frequent_merges(runs: Iterable[Sequence[int]], count: int) -> list[tuple[int, ...]]:
    """Runs of ids that save most tokens when each becomes one: byte-pair encoding, with ids for its characters.

    Args:
        runs: sequences of ids that a merge may not cross the ends of.
        count: how many to find; fewer where pairs that stand at least twice run out.

    Returns:
        Two ids or more each, in the order in which they were found.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    words = Counter(tuple(run) for run in runs if len(run) > 1)
    alphabet = sorted({chr(_FIRST + i) for word in words for i in word})
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # As special tokens the characters have a fixed order, and so have pairs that are equally frequent.
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + count, special_tokens=alphabet, min_frequency=2, show_progress=False
    )
    texts = ("".join(chr(_FIRST + i) for i in word) for word in sorted(words))
    lines = (
        " ".join([text] * times) for text, times in zip(texts, (words[w] for w in sorted(words)), strict=True)
    )
    backend.train_from_iterator(lines, trainer)
    vocab: dict[str, int] = backend.get_vocab()
    merged = sorted((index, text) for text, index in vocab.items() if len(text) > 1)
    return [tuple(ord(character) - _FIRST for character in text) for _, text in merged]
