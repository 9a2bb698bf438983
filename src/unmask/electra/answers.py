"""Answers to sources: a fixed number of places behind the source, and how long the answer in them is.

`[CLS] source [SEP]` is the first segment, the answer the second: its tokens, then [SEP] up to the last of the places.
So the end is learnt as part of the answer (LLaDA, arXiv 2502.09992, section 2.3), and while everything is still
masked, the generator's probability of [SEP] at a place is that of the answer ending there or before. These
probabilities are the distribution of the answer's length, known after one pass; filling masks by confidence alone
would settle the length by the [SEP]s that happen to be surest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unmask.electra.model import ElectraForMaskedLM
from unmask.nn.losses import CHUNK_ROWS
from unmask.nn.ragged import Layout


@dataclass(frozen=True, eq=False)
class Canvas:
    """A batch of texts to be written.

    Attributes:
        ids: (total,) int64, [MASK] where something is to be written.
        layout: the texts' lengths.
        types: (total,) int64 segments; None: all of the first.
        starts, stops: of each text, where in it the result stands.
    """

    ids: Tensor
    layout: Layout
    types: Tensor | None
    starts: list[int]
    stops: list[int]


def open_canvas(sources: Sequence[Tensor], answer_length: int, *, mask_id: int, sep_id: int) -> Canvas:
    """Sources with all places of their answers masked.

    Args:
        sources: (n,) int64 each, [CLS] … [SEP]; a [SEP] that is missing is added.
        answer_length: places of an answer.
    """
    device = sources[0].device
    sep = torch.tensor([sep_id], device=device)
    ended = [row if row[-1] == sep_id else torch.cat([row, sep]) for row in sources]
    masks = torch.full((answer_length,), mask_id, device=device)
    layout = Layout.of([row.numel() + answer_length for row in ended], device)
    starts = [row.numel() for row in ended]
    first = torch.tensor(starts, device=device)
    types = (layout.positions >= first[layout.cells // layout.longest]).long()
    ids = torch.cat([part for row in ended for part in (row, masks)])
    return Canvas(ids, layout, types, starts, [start + answer_length for start in starts])


def close_canvas(canvas: Canvas, lengths: Tensor, sep_id: int) -> Canvas:
    """An open canvas whose answers end, with [SEP], after so many tokens.

    Args:
        lengths: (batch,) int64, at least 1.
    """
    layout = canvas.layout
    starts = torch.tensor(canvas.starts, device=lengths.device)
    is_behind = layout.positions >= (starts + lengths)[layout.cells // layout.longest]
    stops = [start + length for start, length in zip(canvas.starts, lengths.tolist(), strict=True)]
    return replace(canvas, ids=canvas.ids.masked_fill(is_behind, sep_id), stops=stops)


def choose_lengths(generator: ElectraForMaskedLM, canvas: Canvas, sep_id: int, levels: Tensor) -> Tensor:
    """How many tokens each answer has, its [SEP] not counted: quantiles of the generator's distribution.

    Args:
        canvas: open, its answers all of the same number of places.
        levels: (batch,) in (0, 1): 0.5 is the median length.

    Returns:
        (batch,) int64, 1 … places - 1: an answer is never empty, and its end has a place.
    """
    places = canvas.stops[0] - canvas.starts[0]
    starts = canvas.layout.starts + torch.tensor(canvas.starts, device=levels.device)
    at = (starts[:, None] + torch.arange(places, device=levels.device)).flatten()
    hidden = generator.hidden(canvas.ids, canvas.layout, canvas.types, at=at)
    ended = torch.cat(
        [generator.logits(rows).float().softmax(-1)[:, sep_id] for rows in hidden.split(CHUNK_ROWS)]
    )
    # A distribution function does not fall; the places are estimated one by one and may.
    reached = ended.view(-1, places).cummax(1).values >= levels[:, None]
    lengths = torch.where(reached.any(1), reached.long().argmax(1), places - 1)
    return lengths.clamp(1, places - 1)


def length_levels(rows: int, copies: int, *, temperature: float, seed: int) -> Tensor:
    """At which quantiles the lengths of a batch of answers are taken: (rows,) float32.

    Args:
        copies: answers for each source, which stand side by side. Without a temperature they take evenly spaced
            quantiles, a single one the median.
        temperature: above 0: row r's quantile is a random number, a function of (seed, r).
    """
    if temperature == 0:
        return ((torch.arange(rows) % copies) + 0.5) / copies
    # Passes of refinement are numbered from 0: what is drawn before them has a stream of its own.
    drawn = [np.random.default_rng((seed, row, 0, 1)).random() for row in range(rows)]
    return torch.tensor(drawn).float()
