"""Gaps of several tokens: how many masks stand in a gap, and then what they say.

A generator fills masks, it makes none. So every number of tokens that a gap may have is tried, in one batch, and the
text that scores best decides, as it does between candidates: by the discriminator's mean score or, without one, by the
generator's confidence. Of several gaps the lengths are settled one after the other, from left to right, while those
further on have the fewest tokens that they may have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from unmask.electra.answers import Canvas
from unmask.errors import UserError
from unmask.generation.refinement import Refinement, Watch
from unmask.nn.ragged import Layout

if TYPE_CHECKING:
    from unmask.electra.writer import ElectraForConditionalGeneration


@dataclass(frozen=True)
class FilledText:
    """A text whose gaps are written.

    Attributes:
        ids: the whole text.
        gaps: for each gap [start, stop) in `ids`.
    """

    ids: list[int]
    gaps: list[tuple[int, int]]


def fill_gaps(
    model: ElectraForConditionalGeneration,
    ids: Sequence[int],
    *,
    at_least: int,
    at_most: int,
    plan: Refinement,
    watch: Watch | None = None,
) -> FilledText:
    """Write the gaps of one text, each a single [MASK] in `ids`.

    Args:
        ids: token ids, special ones included.
        at_least, at_most: tokens that a gap may have.
        watch: is told before each pass of the generator.

    Raises:
        UserError: no gap, a range that is none, a text that is too long for the model even with the fewest tokens.
    """
    if not 1 <= at_least <= at_most:
        raise UserError(f"a gap of {at_least} to {at_most} tokens: give a range that begins at 1 or above")
    mask_id = model.tokenizer.mask_token_id
    pieces = _between(ids, mask_id)
    if len(pieces) == 1:
        raise UserError(f"the text has no gap: mark one with {model.tokenizer.mask_token}")
    sizes = [at_least] * (len(pieces) - 1)
    model.check_length(len(ids) + sum(sizes) - len(sizes))
    best = _written(model, pieces, [sizes], plan, watch)[0]
    if at_least == at_most:
        return best
    for gap in range(len(sizes)):
        room = model.positions - len(ids) - (sum(sizes) - sizes[gap]) + len(sizes)
        tried = [[*sizes[:gap], size, *sizes[gap + 1 :]] for size in range(at_least, min(at_most, room) + 1)]
        found = _written(model, pieces, tried, plan, watch)
        best, sizes = found[0], [stop - start for start, stop in found[0].gaps]
    return best


def _between(ids: Sequence[int], mask_id: int) -> list[list[int]]:
    """What stands before, between and behind the gaps."""
    pieces: list[list[int]] = [[]]
    for token in ids:
        if token == mask_id:
            pieces.append([])
        else:
            pieces[-1].append(token)
    return pieces


def _written(
    model: ElectraForConditionalGeneration,
    pieces: Sequence[Sequence[int]],
    tried: Sequence[Sequence[int]],
    plan: Refinement,
    watch: Watch | None,
) -> list[FilledText]:
    """The text with gaps of each of the sizes that are tried, the best first."""
    mask_id = model.tokenizer.mask_token_id
    rows = []
    for sizes in tried:
        row = list(pieces[0])
        for size, piece in zip(sizes, pieces[1:], strict=True):
            row += [mask_id] * size + list(piece)
        rows.append(row)
    layout = Layout.of([len(row) for row in rows], model.device)
    stream = torch.tensor([token for row in rows for token in row], device=model.device)
    canvas = Canvas(stream, layout, None, [0] * len(rows), list(layout.lengths))
    written = model.write(canvas, plan, watch)
    order = (
        [0]
        if len(rows) == 1
        else model.scores(written, canvas).argsort(descending=True, stable=True).tolist()
    )
    texts = [text.tolist() for text in written.ids.split(list(layout.lengths))]
    return [FilledText(texts[row], _spans(pieces, tried[row])) for row in order]


def _spans(pieces: Sequence[Sequence[int]], sizes: Sequence[int]) -> list[tuple[int, int]]:
    before = accumulate(
        len(piece) + (sizes[place - 1] if place else 0) for place, piece in enumerate(pieces[:-1])
    )
    return [(start, start + size) for start, size in zip(before, sizes, strict=True)]
