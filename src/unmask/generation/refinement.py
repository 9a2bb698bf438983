"""Writing by filling masks and redoing what looks wrong, over anything that can propose and judge.

Filling follows Mask-Predict and MaskGIT (arXiv 1904.09324, 2202.04200): all open places are proposed at once,
the most confident ones are kept, the rest is proposed again with those in sight. Then the worst of what was
written is masked and proposed once more (Token-Critic, arXiv 2209.04439), a fixed number of times. Long texts are
filled in blocks, left to right, each filled before the next is begun (LLaDA, arXiv 2502.09992, appendix B.4).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from unmask.errors import UserError
from unmask.nn.ragged import Layout
from unmask.nn.sampling import sample


class Propose(Protocol):
    def __call__(self, ids: Tensor, layout: Layout, at: Tensor) -> Tensor:
        """Logits (n, vocabulary) for the places `at` (n,) of a packed stream of ids (total,)."""


#: Is told before each pass of the proposer: the ids (total,) as they stand, the places (n,) that are open, and whether
#: these were written before and sent back.
Watch = Callable[[Tensor, Tensor, bool], None]


class Judge(Protocol):
    def __call__(self, ids: Tensor, layout: Layout) -> Tensor:
        """How suspicious each token of a packed stream is, (total,): the higher, the worse."""


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How to write.

    Attributes:
        rounds: passes to fill all open places; fewer are made where fewer places are open.
        judged: between the rounds the judge says what stays: each round writes all open places, and of all that is
            written the most suspicious is sent back, less after each round (Token-Critic, algorithm 1). A round
            but the last costs a judgement. False: the proposer's confidence, and what is kept stays.
        revisions: how often the worst is sent back afterwards.
        share: part of a row's open places that a revision sends back, at least one place.
        block: how many of a row's open places are filled at a time, from left to right, each block in rounds of
            its own; None: all at a time. Revisions see the whole text: judges are not made for masks.
        temperature: of the proposals; 0 takes the likeliest token.
        seed: the draws of row r in round k are a function of (seed, r, k) and the row's own content, whatever
            else is in the batch.
    """

    rounds: int = 8
    judged: bool = False
    revisions: int = 2
    share: float = 0.25
    block: int | None = None
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UserError(f"rounds={self.rounds} writes nothing: give at least 1")
        if self.revisions < 0:
            raise UserError(f"revisions={self.revisions} must be 0 (none) or more")
        if not 0 < self.share <= 1:
            raise UserError(f"share={self.share} must be above 0 and at most 1")
        if self.judged and self.block is not None:
            raise UserError(
                "judged rounds see the whole text, a block is a part of it: leave block or judged out"
            )
        if self.block is not None and self.block < 1:
            raise UserError(f"block={self.block} must be at least 1 token, or None for all at a time")
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"temperature={self.temperature} must be 0 (the likeliest token) or more")
        if self.seed < 0:
            raise UserError(f"seed={self.seed} must be 0 or more")


@dataclass(frozen=True, eq=False)
class Refined:
    """What was written.

    Attributes:
        ids: (total,) int64, the stream with its open places written.
        places: (slots,) int64, where those are, and
        rows: (slots,) int64, in which row each is.
        confidence: (slots,) the proposer's probability of each token when it was written.
    """

    ids: Tensor
    places: Tensor
    rows: Tensor
    confidence: Tensor

    def row_means(self, values: Tensor, batch: int) -> Tensor:
        """(slots,) → (batch,) the mean over each row's written places; 0 for a row without any."""
        sums = torch.zeros(batch, dtype=values.dtype, device=values.device).index_add_(0, self.rows, values)
        return sums / torch.bincount(self.rows, minlength=batch).clamp(min=1)


def refine(
    ids: Tensor,
    layout: Layout,
    propose: Propose,
    judge: Judge | None,
    *,
    mask_id: int,
    forbidden: Tensor,
    plan: Refinement,
    watch: Watch | None = None,
) -> Refined:
    """Write every masked place of a packed stream; the other places stay as they are.

    Args:
        ids: (total,) int64, `mask_id` on the places to write.
        judge: None: the proposer's own confidence at the time of writing decides what is redone.
        forbidden: (n,) int64 ids that are never written.
    """
    canvas = _Canvas(ids, layout, propose, mask_id, forbidden, plan, watch)
    for block in range(canvas.number_of_blocks):
        canvas.begin(block)
        for number in range(plan.rounds):
            # Passes are numbered so that a row's do not depend on how many blocks the others have.
            pass_number = block * (plan.rounds + plan.revisions) + number
            if not (canvas.draft(number, judge) if plan.judged else canvas.fill(number, pass_number)):
                break
    for number in range(plan.rounds, plan.rounds + plan.revisions):
        canvas.revise(number, judge)
    return Refined(canvas.ids, canvas.places, canvas.rows, canvas.confidence)


class _Canvas:
    """A stream in the middle of being written. "Slots" are its open places, numbered along the stream."""

    def __init__(
        self,
        ids: Tensor,
        layout: Layout,
        propose: Propose,
        mask_id: int,
        forbidden: Tensor,
        plan: Refinement,
        watch: Watch | None,
    ) -> None:
        self.watch = watch
        self.ids = ids.clone()
        self.layout = layout
        self.propose = propose
        self.mask_id = mask_id
        self.forbidden = forbidden
        self.plan = plan
        self.places = (ids == mask_id).nonzero().squeeze(1)
        #: (slots,) the row of each slot, and (batch,) how many slots each row has.
        self.rows = (layout.cells // layout.longest).index_select(0, self.places)
        self.sizes = torch.bincount(self.rows, minlength=layout.batch)
        slots = torch.arange(self.rows.numel(), device=ids.device)
        number_in_row = slots - (self.sizes.cumsum(0) - self.sizes)[self.rows]
        #: (slots,) the block of each slot; (n,) the slots of the block being filled, (batch,) each row's number.
        self.blocks = number_in_row // (plan.block or max(slots.numel(), 1))
        self.number_of_blocks = int(self.blocks.max()) + 1 if slots.numel() else 0
        self.block, self.block_sizes = slots, self.sizes
        self.open = torch.ones_like(self.rows, dtype=torch.bool)
        self.confidence = torch.zeros(self.rows.shape, device=ids.device)

    def begin(self, block: int) -> None:
        """Turn to the block of this number of every row."""
        self.block = (self.blocks == block).nonzero().squeeze(1)
        self.block_sizes = torch.bincount(self.rows[self.block], minlength=self.layout.batch)

    def fill(self, round: int, number: int) -> bool:
        """Propose for the block's open slots and keep the most confident of each row; False where none was open.

        Args:
            round: of the block; number: of the pass, which draws depend on.
        """
        slots = self.block[self.open[self.block]]
        if slots.numel() == 0:
            return False
        tokens, confidence = self._proposals(slots, number, again=False)
        rows = self.rows[slots]
        left = torch.bincount(rows, minlength=self.layout.batch)
        # At least one a round, so that rows end.
        stay = torch.minimum((self.block_sizes * self._open_share(round)).long(), (left - 1).clamp(min=0))
        kept = ranks_in_rows(confidence, rows, self.layout.batch) < (left - stay)[rows]
        self._write(slots[kept], tokens[kept], confidence[kept])
        return True

    def draft(self, round: int, judge: Judge | None) -> bool:
        """Write all open slots, then, but for the last round, open the worst of all; False where none was open."""
        slots = self.open.nonzero().squeeze(1)
        if slots.numel() == 0:
            return False
        self._write(slots, *self._proposals(slots, round, again=round > 0))
        if round + 1 < self.plan.rounds:
            self._open_worst((self.sizes * self._open_share(round)).long(), judge)
        return True

    def revise(self, number: int, judge: Judge | None) -> None:
        """Send the worst share of each row's slots back, all at once, and write them again."""
        if self.places.numel() == 0:
            return
        slots = self._open_worst((self.sizes * self.plan.share).ceil(), judge)
        self._write(slots, *self._proposals(slots, number, again=True))

    def _open_share(self, round: int) -> float:
        """MaskGIT's cosine: the part of the slots that is open after a round; few are kept while little is in sight."""
        return math.cos(math.pi / 2 * (round + 1) / self.plan.rounds)

    def _open_worst(self, quota: Tensor, judge: Judge | None) -> Tensor:
        """Mask the most suspicious slots again, `quota` (batch,) of each row → which they are."""
        if judge is None:
            suspicion = -self.confidence
        else:
            suspicion = judge(self.ids, self.layout).index_select(0, self.places).float()
        worst = ranks_in_rows(suspicion, self.rows, self.layout.batch) < quota[self.rows]
        slots = worst.nonzero().squeeze(1)
        self.ids[self.places[slots]] = self.mask_id
        self.open[slots] = True
        return slots

    def _proposals(self, slots: Tensor, number: int, *, again: bool) -> tuple[Tensor, Tensor]:
        """A token for each slot and its probability, (n,) each."""
        if self.watch is not None:
            self.watch(self.ids, self.places[slots], again)
        logits = self.propose(self.ids, self.layout, self.places[slots]).float()
        logits = logits.index_fill(1, self.forbidden, -math.inf)
        if self.plan.temperature == 0:
            tokens = logits.argmax(-1)
        else:
            tokens = sample(logits, self._uniforms(slots, number), self.plan.temperature)
        probabilities = torch.softmax(logits, -1)
        return tokens, probabilities.gather(1, tokens[:, None]).squeeze(1)

    def _uniforms(self, slots: Tensor, number: int) -> Tensor:
        """(n,) float64 in [0, 1): a stream of its own for each row and round."""
        sizes = torch.bincount(self.rows[slots], minlength=self.layout.batch).tolist()
        drawn = [
            np.random.default_rng((self.plan.seed, row, number)).random(size)
            for row, size in enumerate(sizes)
        ]
        return torch.from_numpy(np.concatenate(drawn)).to(self.ids.device)

    def _write(self, slots: Tensor, tokens: Tensor, confidence: Tensor) -> None:
        self.ids[self.places[slots]] = tokens
        self.confidence[slots] = confidence
        self.open[slots] = False


def ranks_in_rows(values: Tensor, rows: Tensor, batch: int) -> Tensor:
    """The place of each value among those of its row, the largest 0; the earlier of equals comes first.

    Args:
        values: (n,); rows: (n,) int64, ascending.
    """
    order = values.argsort(descending=True, stable=True)
    order = order[rows[order].argsort(stable=True)]
    sizes = torch.bincount(rows, minlength=batch)
    starts = sizes.cumsum(0) - sizes
    ranks = torch.empty_like(rows)
    ranks[order] = torch.arange(rows.numel(), device=rows.device) - starts[rows]
    return ranks
