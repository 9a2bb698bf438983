"""Rules that change logits by what has been written: penalties, bans, and the protocol of constraints."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from unmask.generation.settings import GenerationSettings

_OFF = float("-inf")


class Rule(Protocol):
    """Something that has a say in the next token of each row."""

    def apply(self, logits: Tensor, written: Tensor) -> Tensor:
        """Changed logits.

        Args:
            logits: (rows, vocabulary) float32, logits or log-probabilities; not to be changed in place.
            written: (rows, length) int64: start token, prefix and what has been written.
        """

    def follow(self, rows: Tensor, ids: Tensor) -> None:
        """What happened: row i is now what row `rows[i]` was, with `ids[i]` behind it; both (kept,)."""


class Constraint(Protocol):
    """A set of token sequences that the results must be in."""

    def start(self, rows: int, limit: int, end_id: int) -> Rule:
        """The rule for a new batch.

        Args:
            rows: how many sequences are begun.
            limit: the most tokens that will be written, the end token included.
            end_id: the token that ends a sequence.

        Raises:
            UserError: nothing that is allowed fits the limit.
        """


class _Stateless:
    def follow(self, rows: Tensor, ids: Tensor) -> None:
        """Nothing to remember: `written` says it all."""


class RepetitionPenalty(_Stateless):
    """Divide positive logits of tokens already written by the penalty, multiply negative ones (CTRL)."""

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def apply(self, logits: Tensor, written: Tensor) -> Tensor:
        seen = logits.gather(1, written)
        return logits.scatter(1, written, torch.where(seen < 0, seen * self.penalty, seen / self.penalty))


class NoRepeatNgram(_Stateless):
    """Forbid tokens that would complete an n-gram that is already written."""

    def __init__(self, size: int) -> None:
        self.size = size

    def apply(self, logits: Tensor, written: Tensor) -> Tensor:
        length, known = written.shape[1], self.size - 1
        if length < self.size:
            return logits
        ngrams = written.unfold(1, self.size, 1)
        tail = written[:, None, length - known :]
        rows, places = (ngrams[:, :, :known] == tail).all(-1).nonzero(as_tuple=True)
        changed = logits.clone()
        changed[rows, ngrams[rows, places, known]] = _OFF
        return changed


class MinNewTokens(_Stateless):
    """Forbid the end token until enough is written."""

    def __init__(self, least: int, prompt_length: int, end_id: int) -> None:
        self.least = least
        self.prompt_length = prompt_length
        self.end_id = end_id

    def apply(self, logits: Tensor, written: Tensor) -> Tensor:
        if written.shape[1] - self.prompt_length >= self.least:
            return logits
        changed = logits.clone()
        changed[:, self.end_id] = _OFF
        return changed


def rules_of(settings: GenerationSettings, prompt_length: int, end_id: int) -> list[Rule]:
    """The rules that these settings turn on, in Transformers' order; none where they are off."""
    rules: list[Rule] = []
    if settings.repetition_penalty != 1:
        rules.append(RepetitionPenalty(settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        rules.append(NoRepeatNgram(settings.no_repeat_ngram_size))
    if settings.min_new_tokens:
        rules.append(MinNewTokens(settings.min_new_tokens, prompt_length, end_id))
    return rules


def apply_rules(rules: list[Rule], logits: Tensor, written: Tensor) -> Tensor:
    """(rows, vocabulary) logits after every rule."""
    for rule in rules:
        logits = rule.apply(logits, written)
    return logits
