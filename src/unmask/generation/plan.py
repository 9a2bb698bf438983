"""One call's work, as every search reads it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from unmask.errors import UserError
from unmask.generation.decoder import Decoder
from unmask.generation.rules import Constraint, Rule, rules_of
from unmask.generation.settings import GenerationSettings


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to write behind what.

    Attributes:
        prompt: (inputs, prompt_length) int64: the start token and, where given, a forced prefix.
        end_id: the token that ends a sequence.
        pad_id: what stands behind it.
        limit: the most tokens to write behind the prompt.
        settings: how.
        constraint: what may be written; None: anything.
        with_scores: whether token scores are wanted.
    """

    prompt: Tensor
    end_id: int
    pad_id: int
    limit: int
    settings: GenerationSettings = field(default_factory=GenerationSettings)
    constraint: Constraint | None = None
    with_scores: bool = False

    def __post_init__(self) -> None:
        if self.constraint is not None and self.settings.speculate:
            raise UserError("speculate=True copies from the input, a constraint may forbid it: leave one out")

    @property
    def prompt_length(self) -> int:
        return self.prompt.shape[1]

    @property
    def capacity(self) -> int:
        """The most tokens that a decoder's row is fed, wrong guesses included."""
        guesses = self.settings.draft_tokens if self.settings.speculate else 0
        return self.prompt_length + self.limit - 1 + guesses

    def rules(self, rows: int) -> list[Rule]:
        """New rules for so many rows."""
        rules = rules_of(self.settings, self.prompt_length, self.end_id)
        if self.constraint is not None:
            rules.append(self.constraint.start(rows, self.limit, self.end_id))
        return rules


def feed_prompt(decoder: Decoder, prompt: Tensor) -> Tensor:
    """Feed (rows, length) ids to a fresh decoder → the logits behind the last, (rows, vocabulary)."""
    return decoder.step(prompt[:, 0]) if prompt.shape[1] == 1 else decoder.advance(prompt)[:, -1]


def nothing_left(input_index: int, written: int) -> UserError:
    """The error of a search whose options leave no token to write."""
    return UserError(
        f"input {input_index}: no token may follow the first {written} written: the constraint asks for what "
        "the vocabulary cannot write, or contradicts min_new_tokens or no_repeat_ngram_size"
    )
