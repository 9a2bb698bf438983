"""How well a vocabulary suits a text: fertility, unknown tokens, what does not come back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Self

import numpy as np

from unmask.text.tokenizer import Tokenizer

# Passages that are encoded at once.
_AT_ONCE = 256
#: Kept of what went wrong.
_EXAMPLES = 10
# Characters around the first difference in an example.
_AROUND = 30


@dataclass(frozen=True)
class Loss:
    """Where a text and what its tokens say part: some characters around the first difference, and one of them that
    differs in front."""

    before: str
    after: str


@dataclass(frozen=True)
class Measurement:
    """What became of a text.

    Attributes:
        vocab_size: ids of the tokenizer.
        special: how many of them stand for no text.
        texts, characters, words, tokens: of the text; words are what white space parts.
        unknown: tokens that are the unknown one.
        changed: texts that do not decode to themselves, character by character.
        lost: texts that do not even when white space is set aside and the vocabulary's own folding (case,
            accents, Unicode forms) is allowed: something is gone.
        unknown_words: words with an unknown token and how often they stand in the text, most frequent first.
        losses: the first of the lost ones.
        frequencies: (vocab_size,) int64, how often each id stands for the text.
    """

    vocab_size: int
    special: int
    texts: int
    characters: int
    words: int
    tokens: int
    unknown: int
    changed: int
    lost: int
    unknown_words: Sequence[tuple[str, int]]
    losses: Sequence[Loss]
    frequencies: np.ndarray

    @property
    def fertility(self) -> float:
        """Tokens a word."""
        return self.tokens / max(1, self.words)

    @property
    def characters_per_token(self) -> float:
        return self.characters / max(1, self.tokens)

    @property
    def unknown_rate(self) -> float:
        """The share of tokens that are the unknown one."""
        return self.unknown / max(1, self.tokens)

    @property
    def used(self) -> int:
        """Ids that stand for some of the text."""
        return int(np.count_nonzero(self.frequencies))

    @classmethod
    def of(cls, tokenizer: Tokenizer, texts: Iterable[str]) -> Self:
        """Encode texts and decode them again.

        Args:
            tokenizer: any.
            texts: passages of some thousand characters.
        """
        frequencies = np.zeros(tokenizer.vocab_size, np.int64)
        counts = Counter[str]()
        strange = Counter[str]()
        losses: list[Loss] = []
        remaining = iter(texts)
        while batch := list(islice(remaining, _AT_ONCE)):
            rows = tokenizer.encode_batch(batch, add_special_tokens=False)
            ids = np.fromiter(chain.from_iterable(rows), np.int64)
            frequencies += np.bincount(ids, minlength=len(frequencies))
            for text, row, back in zip(batch, rows, tokenizer.batch_decode(rows), strict=True):
                counts.update(texts=1, characters=len(text), words=len(text.split()))
                if tokenizer.unk_token_id in row:
                    strange.update(text.split())
                if back != text:
                    loss = _loss(tokenizer.normalize(text), tokenizer.normalize(back))
                    counts.update(changed=1, lost=int(loss is not None))
                    losses += [loss] if loss is not None and len(losses) < _EXAMPLES else []
        return cls(
            tokenizer.vocab_size,
            len(tokenizer.special_ids),
            counts["texts"],
            counts["characters"],
            counts["words"],
            int(frequencies.sum()),
            int(frequencies[tokenizer.unk_token_id]),
            counts["changed"],
            counts["lost"],
            _with_unknown(tokenizer, strange),
            losses,
            frequencies,
        )


def _loss(text: str, back: str) -> Loss | None:
    """The first difference that is no white space."""
    before, after = "".join(text.split()), "".join(back.split())
    if before == after:
        return None
    place = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before))
    start = max(0, place - _AROUND // 2)
    return Loss(before[start : start + _AROUND], after[start : start + _AROUND])


def _with_unknown(tokenizer: Tokenizer, words: Counter[str]) -> list[tuple[str, int]]:
    rows = tokenizer.encode_batch(words, add_special_tokens=False)
    found = [
        (word, count)
        for (word, count), row in zip(words.items(), rows, strict=True)
        if tokenizer.unk_token_id in row
    ]
    return sorted(found, key=lambda item: (-item[1], item[0]))
