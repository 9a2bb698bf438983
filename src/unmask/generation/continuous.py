"""A batch that requests enter and leave at any step: greedy decoding and sampling."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from unmask.errors import UserError
from unmask.generation.decoder import Decoder
from unmask.generation.plan import Plan, nothing_left
from unmask.generation.rules import apply_rules
from unmask.generation.sampling import Sampler
from unmask.generation.search import likeliest


class JoiningDecoder(Decoder, Protocol):
    """A decoder that rows can be added to."""

    def join(self, other: Self) -> None:
        """Take over the rows of another decoder, behind these."""


@dataclass(frozen=True, slots=True)
class Written:
    """A token that a step wrote.

    Attributes:
        request: whose.
        id: the token; meaningless with an error.
        last: nothing follows it: it is the end, the limit is reached, or there is an error.
        error: why the request cannot go on.
    """

    request: Any
    id: int
    last: bool
    error: UserError | None = None


class _Row:
    """A request in the batch: its rules and draws are those that it has alone."""

    def __init__(self, request: Any, plan: Plan) -> None:
        self.request, self.plan, self.written = request, plan, 0
        self.sampler = Sampler(plan.settings, 1) if plan.settings.do_sample else None
        self.rules = plan.rules(1)
        self.history = plan.prompt

    @property
    def is_plain(self) -> bool:
        """Whether its next token is simply the likeliest."""
        return self.sampler is None and not self.rules

    def choose(self, logits: Tensor) -> int:
        """The next token, of logits (1, vocabulary).

        Raises:
            UserError: the rules leave none.
        """
        if self.rules:
            logits = apply_rules(self.rules, logits, self.history)
            if bool(logits.amax() == float("-inf")):
                raise nothing_left(0, self.written)
        ids = likeliest(logits) if self.sampler is None else self.sampler(logits, [0], self.written)
        return int(ids)

    def follow(self, token: int) -> None:
        self.written += 1
        if self.rules:
            ids = self.history.new_tensor([token])
            for rule in self.rules:
                rule.follow(torch.zeros_like(ids), ids)
            self.history = torch.cat((self.history, ids[None]), 1)


class ContinuousBatch:
    """The requests being written now.

    What is written for a request is what `generate` writes for it alone, as far as the decoder's logits do not
    depend on the company (`unmask.t5.fused`: bit by bit).
    """

    def __init__(self) -> None:
        self._rows: list[_Row] = []
        self._decoder: Any = None
        self._logits = torch.empty(0)

    def __len__(self) -> int:
        return len(self._rows)

    def admit(
        self,
        start: Callable[[Sequence[Plan]], tuple[JoiningDecoder, Tensor]],
        requests: Sequence[tuple[Any, Plan]],
    ) -> None:
        """Let requests in; their first tokens come with the next step.

        Args:
            start: makes a decoder of new rows, fed their prompts, with the logits behind these.
            requests: each with its plan, whose prompt is (1, length), of one result, without beams.

        Raises:
            UserError: as of `start`, or what the plans ask for; the batch is then as it was.
        """
        rows = [_Row(request, plan) for request, plan in requests]
        decoder, logits = start([plan for _, plan in requests])
        if self._rows:
            self._decoder.join(decoder)
            self._logits = torch.cat((self._logits, logits))
        else:
            self._decoder, self._logits = decoder, logits
        self._rows += rows

    def step(self) -> list[Written]:
        """Write one token for every request; those that have ended leave."""
        found = self._choose()
        for row, written in zip(self._rows, found, strict=True):
            if not written.last:
                row.follow(written.id)
        kept = [place for place, written in enumerate(found) if not written.last]
        self._keep(kept)
        if kept:
            ids = torch.tensor([found[place].id for place in kept], device=self._logits.device)
            self._logits = self._decoder.step(ids)
        return found

    def leave(self, requests: Collection[Any]) -> None:
        """Take requests out that are not to be written any more."""
        kept = [place for place, row in enumerate(self._rows) if row.request not in requests]
        if len(kept) < len(self._rows):
            self._logits = self._logits[kept]
            self._keep(kept)

    def clear(self) -> list[Any]:
        """Take all out; who they were."""
        requests = [row.request for row in self._rows]
        self._keep([])
        return requests

    def _choose(self) -> list[Written]:
        greedy = likeliest(self._logits.contiguous()).tolist()
        found = []
        for place, row in enumerate(self._rows):
            token, error = greedy[place], None
            if not row.is_plain:
                try:
                    token = row.choose(self._logits[place : place + 1])
                except UserError as stuck:
                    error = stuck
            ended = token == row.plan.end_id or row.written + 1 == row.plan.limit
            found.append(Written(row.request, token, ended or error is not None, error))
        return found

    def _keep(self, places: list[int]) -> None:
        if len(places) == len(self._rows):
            return
        self._rows = [self._rows[place] for place in places]
        if self._rows:
            self._decoder.select(torch.tensor(places))
        else:
            self._decoder, self._logits = None, torch.empty(0)
