"""Greedy decoding that guesses several tokens at once by copying, and verifies them in one pass.

The guess is what followed the last tokens when they stood before, in the source or in what has been written
(prompt lookup, arXiv 2304.04487; github.com/apoorvumang/prompt-lookup-decoding). A guess costs time at
worst, never another result: what is kept is what greedy decoding would have written.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from unmask.generation.decoder import Decoder
from unmask.generation.output import GenerationOutput
from unmask.generation.plan import Plan, feed_prompt, nothing_left
from unmask.generation.rules import apply_rules, rules_of
from unmask.generation.search import likeliest

#: As far back as the contexts of two places are compared.
_CONTEXT = 8
#: The most places looked at for one guess.
_PLACES = 128
#: What a pass costs besides its tokens, counted in tokens. A pass reads the weights once, whatever it is fed, and
#: each token costs its arithmetic. By the clock (t5-small on two cores of a Xeon, ms a pass of 1, 8, 32, 128 tokens:
#: float32 3.3, 5.1, 10.7, 33; int8 0.9, 1.5, 3.5, 12) it is about 10, but the chances below are of guesses that
#: stay right for long or fail at once: benchmarks/copying.py found little between 4 and 8, and less outside.
PASS_COST = 6
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
        #: How many tokens before that place are those before the guess; 0: there was none.
        self.context = 0

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
        self.context = best_rank[0]
        if best is None:
            return []
        self.pointer = best
        copied = tokens[best + 1 : best + 1 + count]
        for stop, behind in ((_BORDER, 0), (self.end_id, 1)):
            if stop in copied:
                del copied[copied.index(stop) + behind :]
        return copied


class _Chance:
    """How often something was right, the newest counting most."""

    #: After so many tries all before count half.
    MEMORY = 32

    def __init__(self, expected: float) -> None:
        self.tries = 2.0
        self.right = expected * self.tries

    @property
    def value(self) -> float:
        return self.right / self.tries

    def add(self, right: int, tries: int) -> None:
        self.right += right
        self.tries += tries
        if self.tries > self.MEMORY:
            self.right /= 2
            self.tries /= 2


class Odds:
    """How many guessed tokens are worth verifying, learnt from the guesses of all rows.

    Copies come in runs: the first token of a guess says most, by how much context speaks for it.
    """

    def __init__(self) -> None:
        #: That the first token is right, where one token, or several, are those before the guess.
        self.first = _Chance(0.5), _Chance(0.9)
        #: That one more is, behind one that was.
        self.further = _Chance(0.93)

    def worth(self, context: int, rows: int) -> int:
        """How many tokens to verify of a guess, in a batch of so many rows.

        A token that turns out right spares its row a place in a later pass, which costs that row one token and its
        part of PASS_COST; verifying it costs one token. So it has to be right with a chance of
        rows / (rows + PASS_COST).
        """
        first, needed = self._first(context).value, rows / (rows + PASS_COST)
        if first < needed:
            return 0
        return 1 + int(math.log(needed / first) / math.log(min(self.further.value, 0.995)))

    def learn(self, context: int, first: bool, verified: int, accepted: int) -> None:
        """A guess's first token was right or not, verified or not; so many of those verified were accepted."""
        self._first(context).add(first, 1)
        if accepted:
            self.further.add(accepted - 1, min(accepted, verified - 1))

    def _first(self, context: int) -> _Chance:
        return self.first[context > 1]


class _Row:
    """One result as it grows."""

    def __init__(self, number: int, source: Sequence[int], plan: Plan) -> None:
        self.number = number
        self.prompt: list[int] = plan.prompt[number].tolist()
        self.written: list[int] = []
        self.scores: list[float] = []
        self.copier = Copier(source, plan.end_id)
        self.plan = plan
        #: What may come next, whether it is verified or not.
        self.guessed: list[int] = []

    @property
    def ended(self) -> bool:
        return len(self.written) >= self.plan.limit or self.plan.end_id in self.written[-1:]

    def guess(self, odds: Odds, rows: int) -> list[int]:
        """What is worth verifying."""
        room = self.plan.limit - len(self.written) - 1
        self.guessed = self.copier.guess(min(self.plan.settings.draft_tokens, room)) if room else []
        return self.guessed[: odds.worth(self.copier.context, rows)] if self.guessed else []

    def learn(self, odds: Odds, chosen: int, verified: int, accepted: int) -> None:
        """The token written behind what was, and how far the guess was right."""
        if self.guessed:
            odds.learn(self.copier.context, chosen == self.guessed[0], verified, accepted)
            self.guessed = []

    def accept(self, ids: list[int], scores: list[float]) -> None:
        """Write these, up to the end token."""
        if self.plan.end_id in ids:
            ids = ids[: ids.index(self.plan.end_id) + 1]
        self.written += ids
        self.scores += scores[: len(ids)]
        self.copier.write(ids)


class _Speculation:
    """A batch in the middle of it. Each row's cache holds the prompt and all it has written but the last."""

    def __init__(
        self, decoder: Decoder, plan: Plan, sources: Sequence[Sequence[int]], tolerance: float
    ) -> None:
        self.decoder = decoder
        self.plan = plan
        self.tolerance = tolerance
        self.rows = [_Row(number, source, plan) for number, source in enumerate(sources)]
        self.odds = Odds()
        self.device = plan.prompt.device
        self.prompt = plan.prompt
        self.rules = rules_of(plan.settings, plan.prompt_length, plan.end_id)
        #: Whether the caches were filled by `step` alone, as greedy decoding fills them.
        self.stepped = True

    def begin(self) -> None:
        """The prompt and the first token."""
        logits = feed_prompt(self.decoder, self.prompt)
        self._accept(logits, [[] for _ in self.rows])
        self._drop_ended()

    def round(self) -> None:
        """Guess, verify, keep what is right and the token behind it."""
        guesses = [row.guess(self.odds, len(self.rows)) for row in self.rows]
        before = [self.plan.prompt_length + len(row.written) - 1 for row in self.rows]
        logits = self._logits(guesses)
        accepted = self._accept(logits, guesses)
        doubtful = [row for row, count in enumerate(accepted) if count < 0]
        if doubtful:
            self._replay(doubtful)
        elif any(guesses):
            cached = [fed_before + 1 + count for fed_before, count in zip(before, accepted, strict=True)]
            self.decoder.rewind(self._tensor(cached))
        self._drop_ended()

    def _logits(self, guesses: list[list[int]]) -> Tensor:
        """Feed each row its last token and its guess → logits behind each, (tokens, vocabulary), row by row."""
        last = [row.written[-1] for row in self.rows]
        width = 1 + max(map(len, guesses))
        if width == 1:
            return self.decoder.step(self._tensor(last))
        self.stepped = False
        padding = [self.plan.pad_id] * (width - 1)
        fed = [[token, *guess, *padding[len(guess) :]] for token, guess in zip(last, guesses, strict=True)]
        lengths = [1 + len(guess) for guess in guesses]
        logits = self.decoder.advance(self._tensor(fed), self._tensor(lengths)).flatten(0, 1)
        if sum(lengths) == len(fed) * width:
            return logits
        return logits[[row * width + place for row, count in enumerate(lengths) for place in range(count)]]

    def _tensor(self, values: list[int] | list[list[int]]) -> Tensor:
        return torch.tensor(values, device=self.device)

    def _accept(self, logits: Tensor, guesses: list[list[int]]) -> list[int]:
        """Write what greedy decoding would have.

        Args:
            logits: (tokens, vocabulary): behind the last token of each row and behind each one guessed, row by row.

        Returns:
            How many guessed tokens of each row were right; -1 for a row whose next token is in doubt.
        """
        allowed = self._ruled(logits, guesses)
        ids = likeliest(allowed)
        tokens, scores = ids.tolist(), self._scores(logits, ids)
        firsts = [0, *accumulate(len(guess) + 1 for guess in guesses)]
        counts = [_agreement(tokens[first:], guess) for first, guess in zip(firsts, guesses, strict=False)]
        doubts = self._doubts(allowed, ids, firsts, counts)
        for number, row in enumerate(self.rows):
            first, count, doubt = firsts[number], counts[number], doubts[number]
            row.learn(self.odds, tokens[first], len(guesses[number]), count)
            kept = slice(first, first + (count + 1 if doubt is None else doubt))
            self._check_choice(row, tokens[kept], allowed[kept])
            row.accept(tokens[kept], scores[kept])
            # An end token before the doubt settles it.
            if doubt is not None and not row.ended:
                counts[number] = -1
        return counts

    def _ruled(self, logits: Tensor, guesses: list[list[int]]) -> Tensor:
        """What the rules make of logits, each behind its own history."""
        if not self.rules:
            return logits
        # Rules take histories of one length at a time.
        groups: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
        number = 0
        for row, guess in zip(self.rows, guesses, strict=True):
            for place in range(len(guess) + 1):
                history = row.prompt + row.written + guess[:place]
                groups[len(history)].append((number, history))
                number += 1
        allowed = logits.clone()
        for group in groups.values():
            numbers, histories = map(list, zip(*group, strict=True))
            allowed[numbers] = apply_rules(self.rules, logits[numbers], self._tensor(histories))
        return allowed

    def _check_choice(self, row: _Row, chosen: list[int], logits: Tensor) -> None:
        """Raises:
        UserError: one of the tokens that would be written is one that the rules forbid, like all others.
        """
        if not self.rules:
            return
        ends = chosen.index(self.plan.end_id) + 1 if self.plan.end_id in chosen else len(chosen)
        stuck = (logits[:ends].amax(-1) == float("-inf")).nonzero()
        if stuck.numel():
            raise nothing_left(row.number, len(row.written) + int(stuck[0]))

    def _doubts(self, logits: Tensor, ids: Tensor, firsts: list[int], counts: list[int]) -> list[int | None]:
        """The first place of each row where two tokens are too close to tell them apart.

        Logits of several tokens in one pass differ from those of `step` in their last bits.
        """
        doubts: list[int | None] = [None] * len(counts)
        if self.stepped or not self.tolerance:
            return doubts
        places = [(row, place) for row, count in enumerate(counts) for place in range(count + 1)]
        tokens = self._tensor([firsts[row] + place for row, place in places])
        considered = logits[tokens]
        peaks = considered.gather(-1, ids[tokens, None])
        penalty = self.plan.settings.repetition_penalty
        # The penalty scales differences, too.
        margin = self.tolerance * max(penalty, 1 / penalty) * (1 + peaks.abs())
        close = (considered >= peaks - margin).sum(-1) > 1
        for number in close.nonzero().squeeze(1).flip(0).tolist():
            row, place = places[number]
            doubts[row] = place
        return doubts

    def _scores(self, logits: Tensor, ids: Tensor) -> list[float]:
        """Of each token; none where they are not wanted."""
        if not self.plan.with_scores:
            return []
        chosen = logits.gather(-1, ids[:, None]).squeeze(-1)
        scores: list[float] = (chosen - logits.logsumexp(-1)).tolist()
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
        self._accept(last[settled], [[] for _ in doubtful])
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
