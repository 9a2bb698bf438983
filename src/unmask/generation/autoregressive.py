"""Left-to-right decoding over anything that can step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from unmask.errors import UserError


class Decoder(Protocol):
    """A model in the middle of decoding a batch of rows."""

    rows: int

    def step(self, ids: Tensor) -> Tensor:
        """Feed the last token of each row, (rows,) → the next token's logits, (rows, vocabulary) float32."""

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order: (kept,) int64."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to draw tokens instead of taking the likeliest.

    Attributes:
        temperature: divides the logits; > 0.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the likeliest tokens whose probabilities first reach this sum; 1 keeps all.
        seed: the draw of row r at step t is a function of (seed, r, t) alone, whatever else is in the batch.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(f"temperature {self.temperature} must be above 0 (leave sampling off for greedy)")
        if self.top_k < 0:
            raise UserError(f"top_k {self.top_k} must be 0 (off) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p {self.top_p} must be above 0 and at most 1")


def new_token_limit(
    max_new_tokens: int | None,
    max_length: int | None,
    *,
    prompt_length: int,
    defaults: Mapping[str, Any],
    fallback: int,
) -> int:
    """How many tokens may be written.

    Args:
        max_new_tokens, max_length: what the caller asked for; `max_length` counts the prompt.
        prompt_length: tokens that `max_length` counts and that are already there.
        defaults: generation_config.json's values, used where the caller asked for nothing.
        fallback: where that says nothing either.

    Raises:
        UserError: both given, or a limit that leaves nothing to write.
    """
    if max_new_tokens is not None and max_length is not None:
        raise UserError(
            f"max_new_tokens={max_new_tokens} and max_length={max_length} say the same thing twice: give one"
        )
    if max_new_tokens is None and max_length is None:
        max_new_tokens = defaults.get("max_new_tokens")
        max_length = None if max_new_tokens is not None else defaults.get("max_length")
    if max_new_tokens is not None:
        if max_new_tokens < 1:
            raise UserError(f"max_new_tokens={max_new_tokens} leaves nothing to write")
        return max_new_tokens
    if max_length is None:
        return fallback
    if max_length <= prompt_length:
        raise UserError(
            f"max_length={max_length} leaves nothing to write: {prompt_length} tokens of it are already there"
        )
    return max_length - prompt_length


def decode(
    decoder: Decoder,
    *,
    start_id: int,
    end_id: int,
    pad_id: int,
    max_new_tokens: int,
    copies: int = 1,
    sampling: Sampling | None = None,
) -> Tensor:
    """Decode until every row has ended or the limit is reached; finished rows leave the batch.

    Args:
        copies: rows that share an input, side by side; more than one needs sampling.

    Returns:
        (rows, ≤ max_new_tokens + 1) int64, beginning with `start_id`, padded behind `end_id`.

    Raises:
        UserError: several greedy copies, which would all be the same.
    """
    if copies > 1 and sampling is None:
        raise UserError(f"num_return_sequences={copies} needs sampling: greedy decoding has one result")
    device = None
    written: Tensor | None = None
    active = torch.arange(decoder.rows)
    ids = torch.full((decoder.rows,), start_id)
    for step in range(max_new_tokens):
        logits = decoder.step(ids if device is None else ids.to(device))
        if written is None:
            device = logits.device
            written = torch.full((decoder.rows, max_new_tokens + 1), pad_id, device=device)
            written[:, 0] = start_id
            active = active.to(device)
        ids = logits.argmax(-1) if sampling is None else _draw(logits, sampling, active, step)
        written[active, step + 1] = ids
        going = ids != end_id
        if not bool(going.all()):
            kept = going.nonzero().squeeze(1)
            if kept.numel() == 0:
                break
            active, ids = active[kept], ids[kept]
            decoder.select(kept)
    assert written is not None
    return written[:, : step + 2]


def _draw(logits: Tensor, sampling: Sampling, rows: Tensor, step: int) -> Tensor:
    """One token a row by the Gumbel trick, the noise of each row a function of (seed, row, step)."""
    logits = (logits / sampling.temperature).double()
    if sampling.top_k:
        kth = logits.topk(min(sampling.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    if sampling.top_p < 1:
        ordered, order = logits.sort(descending=True)
        probabilities = ordered.softmax(-1)
        # A token stays while the sum before it is below top_p, so the likeliest always stays.
        late = probabilities.cumsum(-1) - probabilities >= sampling.top_p
        logits = logits.masked_fill(late.scatter(1, order, late), float("-inf"))
    noise = torch.empty_like(logits)
    generator = torch.Generator(logits.device)
    for place, row in enumerate(rows.tolist()):
        generator.manual_seed(hash((sampling.seed, row, step)) & (2**63 - 1))
        noise[place].exponential_(generator=generator)
    return (logits - noise.log()).argmax(-1)
