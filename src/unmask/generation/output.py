"""What decoding hands back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class GenerationOutput:
    """Sequences and what the model thought of them.

    Attributes:
        sequences: (rows, length) int64: start token, prefix, what was written, padding.
        token_scores: (rows, length) float32: the model's own log-probability of each token that was written,
            before any penalty, filter or constraint; 0 on the start token, the prefix and padding. Their sum
            is what `model.score` gives.
        sequence_scores: (rows,) float32. Beams: what the search ranked by, the sum of log-probabilities
            (after repetition_penalty, where that is on) divided by tokens written ** length_penalty, as in
            Transformers; -inf where no sequence could be found. Otherwise: the sum of `token_scores` over
            tokens written.
    """

    sequences: Tensor
    token_scores: Tensor
    sequence_scores: Tensor


@dataclass(frozen=True)
class StreamedToken:
    """A token as it is written.

    Attributes:
        row: which result it belongs to, counted as the rows of `generate`'s result are.
        id: the token; a row's last one is the end token, unless the limit cuts it off.
        score: the model's log-probability of it.
    """

    row: int
    id: int
    score: float


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A result as text.

    Attributes:
        text: what was written, a forced prefix included, special tokens left out.
        complete: the end token was written; False where the limit cut the text off.
        score: see `GenerationOutput.sequence_scores`; None where scores were not asked for.
        tokens: what was written behind the prefix, the end token included, as pieces of the vocabulary;
            empty where scores were not asked for.
        token_scores: the model's log-probability of each of `tokens`.
    """

    text: str
    complete: bool = True
    score: float | None = None
    tokens: tuple[str, ...] = ()
    token_scores: tuple[float, ...] = ()
