"""What a T5 answers at once: embeddings, scores, results of beam search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.generation.rules import Rule
from unmask.nn.ragged import Layout
from unmask.t5.byte_tokenizer import AnyT5Tokenizer
from unmask.t5.engine import engine_of
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.writing import T5Writer

#: (prompt, decoder_prefix, options of decoding)
Search = tuple[str, str, dict[str, Any]]


def embed(model: T5ForConditionalGeneration, rows: list[list[int]]) -> list[list[float]]:
    """The mean of the encoder's states of each row of ids, at length 1."""
    layout = Layout.of([len(row) for row in rows], model.device)
    ids = torch.tensor([token for row in rows for token in row], device=model.device)
    hidden = engine_of(model).encode(ids, layout)
    vectors = torch.stack([part.mean(0) for part in hidden.split(layout.lengths)])
    found: list[list[float]] = F.normalize(vectors, dim=-1).tolist()
    return found


def score(model: T5ForConditionalGeneration, pairs: list[tuple[list[int], list[int]]]) -> list[list[float]]:
    """The log-probability, in nats, of each token of each target behind its source; both are ids."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(source) for source, _ in pairs], batch_first=True)
    lengths = torch.tensor([len(source) for source, _ in pairs])
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    targets = [target for _, target in pairs]
    found = model.score(ids.to(model.device), targets, mask.to(model.device), per_token=True).tolist()
    return [row[: len(target)] for row, target in zip(found, targets, strict=True)]


def search(
    model: T5ForConditionalGeneration,
    tokenizer: AnyT5Tokenizer,
    breathe: Callable[[], None],
    items: Sequence[Search],
) -> list[tuple[str, bool]]:
    """Results of beam search, each by itself: the text, and whether it is complete.

    Args:
        breathe: is called at every step of a search.
    """
    found = []
    for prompt, prefix, options in items:
        writer = T5Writer(model, tokenizer, decoder_prefix=prefix, constraint=_Pause(breathe), **options)
        best = writer.write([prompt])[0][0]
        found.append((best.text, best.complete))
    return found


class _Pause:
    """A constraint that allows everything, and lets others have their turn at every step."""

    def __init__(self, breathe: Callable[[], None]) -> None:
        self.breathe = breathe

    def start(self, rows: int, limit: int, end_id: int) -> Rule:
        return self

    def apply(self, logits: Tensor, written: Tensor) -> Tensor:
        self.breathe()
        return logits

    def follow(self, rows: Tensor, ids: Tensor) -> None:
        """Nothing to remember."""
