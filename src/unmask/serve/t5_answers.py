"""What a T5 answers but by writing in the running batch: embeddings, scores, results of beam search."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.generation.rules import Rule
from unmask.nn.ragged import Layout
from unmask.serve.jobs import Pause
from unmask.t5.byte_tokenizer import AnyT5Tokenizer
from unmask.t5.engine import engine_of
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.writing import T5Writer

#: (prompt, decoder_prefix, options of `T5Writer`)
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
    pause: Pause,
    item: Search,
) -> tuple[str, bool]:
    """The result of a beam search: the text, and whether it is complete."""
    prompt, prefix, options = item
    writer = T5Writer(model, tokenizer, decoder_prefix=prefix, constraint=Pauses(pause), **options)
    best = writer.write([prompt])[0][0]
    return best.text, best.complete


class Pauses:
    """A constraint that allows everything, and pauses at every step."""

    def __init__(self, pause: Pause) -> None:
        self.pause = pause

    def start(self, rows: int, limit: int, end_id: int) -> Rule:
        return self

    def apply(self, logits: Tensor, written: Tensor) -> Tensor:
        self.pause()
        return logits

    def follow(self, rows: Tensor, ids: Tensor) -> None:
        """Nothing to remember."""
