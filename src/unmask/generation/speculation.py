"""Greedy decoding that guesses several tokens at once by copying, and verifies them in one pass.

The guess is what followed the last tokens when they stood before, in the source or in what has been written
(prompt lookup, arXiv 2304.04487; github.com/apoorvumang/prompt-lookup-decoding). A guess costs time at
worst, never another result: what is kept is what greedy decoding would have written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from unmask.generation.decoder import Decoder
from unmask.generation.output import GenerationOutput
from unmask.generation.plan import Plan, feed_prompt, nothing_left
from unmask.generation.rules import apply_rules, rules_of

#: As far back as the contexts of two places are compared.
_CONTEXT = 8
#: The most places looked at for one guess.
_PLACES = 128
#: The most tokens verified in one pass over all rows. A pass reads the weights once, which a few tokens share for
#: nothing; each more costs its arithmetic. t5-small on two cores of a Xeon, ms a pass of 1, 8, 32, 128 tokens:
#: float32 3.3, 5.1, 10.7, 33; int8 0.9, 1.5, 3.5, 12. So a row alone guesses far, a row among many less.
VERIFIED = 128
#: Stands between source and what is written; no token has it.
_BORDER = -1


class Copier:
    """Guesses how a text goes on, from its source and from itself."""

    def __init__(self, source: Sequence[int], end_id: int) -> None:
        self.end_id = end_id
        self.tokens = [*source, _BORDER]
        self.places: dict[int, list[int]] = defaultdict(list)
        for place, token in enumerate(source):
            self.places[token].append(place)
        #: Where the last guess was copied from: an edited text goes on near there.
        self.pointer = 0

    def write(self, ids: Sequence[int]) -> None:
        """These tokens were written."""
        for token in ids:
            self.places[token].append(len(self.tokens))
            self.tokens.append(token)

    def guess(self, count: int) -> list[int]:
        """At most `count` tokens that may follow; none where the last token stands nowhere before."""
        tokens, last = self.tokens, len(self.tokens) - 1
        best, best_rank = None, (0, 0)
        for place in self.places[tokens[last]][-_PLACES:]:
            if place == last:
                continue
            length = 1
            while length < _CONTEXT and place >= length and tokens[place - length] == tokens[last - length]:
                length += 1
            rank = (length, -abs(place - self.pointer))
            if best is None or rank > best_rank:
                best, best_rank = place, rank
        if best is None:
            return []
        self.pointer = best
        copied = tokens[best + 1 : best + 1 + count]
        for stop, behind in ((_BORDER, 0), (self.end_id, 1)):
            if stop in copied:
                del copied[copied.index(stop) + behind :]
        return copied


class _Row:
    """One result as it grows."""

    def __init__(self, number: int, source: Sequence[int], plan: Plan) -> None:
        self.number = number
        self.prompt: list[int] = plan.prompt[number].tolist()
        self.written: list[int] = []
        self.scores: list[float] = []
        self.copier = Copier(source, plan.end_id)
        self.plan = plan
        self.budget = max(1, plan.settings.draft_tokens // 2)

    @property
    def ended(self) -> bool:
        return len(self.written) >= self.plan.limit or self.plan.end_id in self.written[-1:]

    def guess(self, most: int) -> list[int]:
        return self.copier.guess(min(self.budget, most, self.plan.limit - len(self.written) - 1))

    def accept(self, ids: list[int], scores: list[float]) -> None:
        """Write these, up to the end token."""
        if self.plan.end_id in ids:
            ids = ids[: ids.index(self.plan.end_id) + 1]
        self.written += ids
        self.scores += scores[: len(ids)]
        self.copier.write(ids)

    def learn(self, guessed: int, accepted: int) -> None:
        """Guess more after a guess that was right throughout, less after one that was not."""
        if guessed and accepted == guessed:
            self.budget = min(2 * self.budget, self.plan.settings.draft_tokens)
        elif guessed:
            self.budget = max(accepted + 1, self.plan.settings.draft_tokens // 2)


class _Speculation:
    """A batch in the middle of it. Each row's cache holds the prompt and all it has written but the last."""

    def __init__(
        self, decoder: Decoder, plan: Plan, sources: Sequence[Sequence[int]], tolerance: float
    ) -> None:
        self.decoder = decoder
        self.plan = plan
        self.tolerance = tolerance
        self.rows = [_Row(number, source, plan) for number, source in enumerate(sources)]
        self.device = plan.prompt.device
        self.prompt = plan.prompt
        self.rules = rules_of(plan.settings, plan.prompt_length, plan.end_id)
        #: Whether the caches were filled by `step` alone, as greedy decoding fills them.
        self.stepped = True

    def begin(self) -> None:
        """The prompt and the first token."""
        logits = feed_prompt(self.decoder, self.prompt)[:, None]
        self._accept(logits, [[] for _ in self.rows])
        self._drop_ended()

    def round(self) -> None:
        """Guess, verify, keep what is right and the token behind it."""
        most = max(1, VERIFIED // len(self.rows) - 1)
        guesses = [row.guess(most) for row in self.rows]
        width = 1 + max(map(len, guesses))
        fed = [row.written[-1:] + guess for row, guess in zip(self.rows, guesses, strict=True)]
        before = [self.plan.prompt_length + len(row.written) - 1 for row in self.rows]
        if width == 1:
            logits = self.decoder.step(self._tensor([ids[0] for ids in fed]))[:, None]
        else:
            self.stepped = False
            padded = [ids + [self.plan.pad_id] * (width - len(ids)) for ids in fed]
            logits = self.decoder.advance(self._tensor(padded), self._tensor([len(ids) for ids in fed]))
        accepted = self._accept(logits, guesses)
        doubtful = [row for row, count in enumerate(accepted) if count < 0]
        if doubtful:
            self._replay(doubtful)
        elif width > 1:
            cached = [fed_before + 1 + count for fed_before, count in zip(before, accepted, strict=True)]
            self.decoder.rewind(self._tensor(cached))
        self._drop_ended()

    def _tensor(self, values: list[int] | list[list[int]]) -> Tensor:
        return torch.tensor(values, device=self.device)

    def _accept(self, logits: Tensor, guesses: list[list[int]]) -> list[int]:
        """Write what greedy decoding would have.

        Returns:
            How many guessed tokens of each row were right; -1 for a row whose next token is in doubt.
        """
        allowed = self._ruled(logits, guesses)
        best, ids = allowed.max(-1)
        choices = ids.tolist()
        counts = [_agreement(chosen, guess) for chosen, guess in zip(choices, guesses, strict=True)]
        doubts = self._doubts(allowed, best, counts)
        scores = self._scores(logits, ids, counts)
        for number, (row, guess) in enumerate(zip(self.rows, guesses, strict=True)):
            count, doubt = counts[number], doubts[number]
            row.learn(len(guess), count)
            kept = count + 1 if doubt is None else doubt
            self._check_choice(row, choices[number][:kept], best[number])
            row.accept(choices[number][:kept], scores[number][:kept])
            # An end token before the doubt settles it.
            if doubt is not None and not row.ended:
                counts[number] = -1
        return counts

    def _ruled(self, logits: Tensor, guesses: list[list[int]]) -> Tensor:
        """What the rules make of (rows, width, vocabulary) logits, each place behind its own history."""
        if not self.rules:
            return logits
        # Rules take histories of one length at a time.
        places: dict[int, list[tuple[int, int, list[int]]]] = defaultdict(list)
        for number, (row, guess) in enumerate(zip(self.rows, guesses, strict=True)):
            for place in range(len(guess) + 1):
                history = row.prompt + row.written + guess[:place]
                places[len(history)].append((number, place, history))
        allowed = logits.clone()
        for group in places.values():
            rows, columns, histories = map(list, zip(*group, strict=True))
            allowed[rows, columns] = apply_rules(self.rules, logits[rows, columns], self._tensor(histories))
        return allowed

    def _check_choice(self, row: _Row, chosen: list[int], best: Tensor) -> None:
        """Raises:
        UserError: one of the tokens that would be written is one that the rules forbid, like all others.
        """
        if not self.rules:
            return
        ends = chosen.index(self.plan.end_id) + 1 if self.plan.end_id in chosen else len(chosen)
        stuck = (best[:ends] == float("-inf")).nonzero()
        if stuck.numel():
            raise nothing_left(row.number, len(row.written) + int(stuck[0]))

    def _doubts(self, logits: Tensor, best: Tensor, counts: list[int]) -> list[int | None]:
        """The first place of each row where two tokens are too close to tell them apart.

        Logits of several tokens in one pass differ from those of `step` in their last bits.
        """
        doubts: list[int | None] = [None] * len(counts)
        if self.stepped or not self.tolerance:
            return doubts
        rows = torch.tensor([row for row, count in enumerate(counts) for _ in range(count + 1)])
        places = torch.tensor([place for count in counts for place in range(count + 1)])
        peaks = best[rows, places]
        penalty = self.plan.settings.repetition_penalty
        # The penalty scales differences, too.
        margin = self.tolerance * max(penalty, 1 / penalty) * (1 + peaks.abs())
        close = (logits[rows, places] >= (peaks - margin)[:, None]).sum(-1) > 1
        for place in close.nonzero().squeeze(1).flip(0).tolist():
            doubts[int(rows[place])] = int(places[place])
        return doubts

    def _scores(self, logits: Tensor, ids: Tensor, counts: list[int]) -> list[list[float]]:
        if not self.plan.with_scores:
            return [[] for _ in counts]
        chosen = logits.gather(-1, ids[:, :, None]).squeeze(-1)
        scores: list[list[float]] = (chosen - logits.logsumexp(-1)).tolist()
        return scores

    def _replay(self, doubtful: list[int]) -> None:
        """Fill the caches again by `step`, as greedy decoding does, and decide what was in doubt."""
        fed = [
            row.prompt + (row.written if number in doubtful else row.written[:-1])
            for number, row in enumerate(self.rows)
        ]
        lengths = [len(ids) for ids in fed]
        self.decoder.rewind(torch.zeros(len(fed), dtype=torch.int64, device=self.device))
        logits = feed_prompt(self.decoder, self.prompt)
        last = logits.clone()
        for place in range(self.plan.prompt_length, max(lengths)):
            # A row that is shorter repeats its last token, which is rewound below.
            logits = self.decoder.step(self._tensor([ids[min(place, len(ids) - 1)] for ids in fed]))
            for row in doubtful:
                if lengths[row] == place + 1:
                    last[row] = logits[row]
        self.decoder.rewind(self._tensor(lengths))
        self.stepped = True
        everyone = self.rows
        settled = torch.tensor(doubtful, device=self.device)
        self.rows = [everyone[row] for row in doubtful]
        self._accept(last[settled][:, None], [[] for _ in doubtful])
        self.rows = everyone

    def _drop_ended(self) -> None:
        kept = [place for place, row in enumerate(self.rows) if not row.ended]
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[place] for place in kept]
        if kept:
            self.decoder.select(self._tensor(kept))
            self.prompt = self.prompt[kept]


def _agreement(chosen: list[int], guess: list[int]) -> int:
    """How many guessed tokens, from the first, are the chosen ones."""
    for place, token in enumerate(guess):
        if chosen[place] != token:
            return place
    return len(guess)


def speculate(
    decoder: Decoder, plan: Plan, sources: Sequence[Sequence[int]], tolerance: float
) -> GenerationOutput:
    """Greedy decoding with guesses copied from `sources`, the token ids of each input.

    Args:
        tolerance: tokens whose logits are nearer than tolerance · (1 + |logit|) are told apart by feeding the
            sequence again token by token, as greedy decoding does: what `advance` and `step` may differ by.
            0 trusts `advance`.
    """
    speculation = _Speculation(decoder, plan, sources, tolerance)
    rows = list(speculation.rows)
    speculation.begin()
    while speculation.rows:
        speculation.round()
    return _padded(rows, plan)


def _padded(rows: list[_Row], plan: Plan) -> GenerationOutput:
    first, longest = plan.prompt_length, max(len(row.written) for row in rows)
    sequences = torch.full((len(rows), first + longest), plan.pad_id, dtype=torch.int64)
    sequences[:, :first] = plan.prompt
    scores = torch.zeros(sequences.shape if plan.with_scores else (len(rows), 0))
    for number, row in enumerate(rows):
        sequences[number, first : first + len(row.written)] = torch.tensor(row.written)
        if plan.with_scores:
            scores[number, first : first + len(row.written)] = torch.tensor(row.scores)
    device = plan.prompt.device
    return GenerationOutput(sequences.to(device), scores.to(device), scores.sum(1).to(device))
