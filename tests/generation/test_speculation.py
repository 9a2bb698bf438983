"""Copying speculation: greedy decoding's results in fewer passes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import END, VOCABULARY, padded_batch
from torch import Tensor

from unmask.errors import UserError
from unmask.generation.plan import Plan
from unmask.generation.search import decode
from unmask.generation.settings import GenerationSettings
from unmask.generation.speculation import Copier, Odds, speculate
from unmask.t5.config import T5Config
from unmask.t5.decoding import T5Decoder
from unmask.t5.model import T5ForConditionalGeneration


class Script:
    """A decoder whose logits are a fixed function of what it was fed, with the errors of a real one.

    A row's logits point at the token that its own rule names; `advance` and what it leaves in the cache add
    noise below `noise`, and some places are ties within it.
    """

    def __init__(self, sources: Sequence[Sequence[int]], rule: Any, *, noise: float, ties: float) -> None:
        self.sources = [list(source) for source in sources]
        self.fed: list[list[int]] = [[] for _ in sources]
        self.noisy = [0] * len(self.sources)
        self.rule, self.noise, self.ties = rule, noise, ties
        self.passes = 0
        self.widths: list[int] = []

    @property
    def rows(self) -> int:
        return len(self.fed)

    def _logits(self, row: int, noisy: bool) -> Tensor:
        source, fed = self.sources[row], self.fed[row]
        generator = torch.Generator().manual_seed(hash((tuple(source), tuple(fed))) % 2**31)
        logits = torch.rand(20, generator=generator)
        token = self.rule(source, fed)
        logits[token] = 3.0
        if torch.rand((), generator=generator) < self.ties:
            logits[(token + 1) % 20] = 3.0 - self.noise * 0.4
        if noisy:
            logits += (torch.rand(20) - 0.5) * self.noise
        return logits

    def step(self, ids: Tensor) -> Tensor:
        self.passes += 1
        for fed, token in zip(self.fed, ids.tolist(), strict=True):
            fed.append(token)
        return torch.stack([self._logits(row, self.noisy[row] > 0) for row in range(self.rows)])

    def advance(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        self.passes += 1
        self.widths.append(ids.shape[1])
        counts = [ids.shape[1]] * self.rows if lengths is None else lengths.tolist()
        logits = torch.zeros(*ids.shape, 20)
        for row, count in enumerate(counts):
            # The prompt is fed in the same way by greedy decoding: what it leaves is the same.
            is_prompt = not self.fed[row]
            self.noisy[row] = 0 if is_prompt else self.noisy[row] or len(self.fed[row]) + 1
            for place in range(count):
                self.fed[row].append(int(ids[row, place]))
                logits[row, place] = self._logits(row, not is_prompt)
        return logits

    def rewind(self, lengths: Tensor) -> None:
        for row, length in enumerate(lengths.tolist()):
            assert length <= len(self.fed[row]), "a rewind cannot go forward"
            self.fed[row] = self.fed[row][:length]
            if length < self.noisy[row]:
                self.noisy[row] = 0

    def select(self, rows: Tensor) -> None:
        kept = rows.tolist()
        self.sources = [self.sources[row] for row in kept]
        self.fed = [list(self.fed[row]) for row in kept]
        self.noisy = [self.noisy[row] for row in kept]


def edited_copy(source: list[int], fed: list[int]) -> int:
    """Write the source, with some tokens replaced, dropped or doubled by a rule of their own."""
    place = len(fed) - 1
    token = source[place % len(source)] if place < len(source) + 2 else END
    return (token + 7) % 18 + 2 if place % 6 == 5 and token != END else token


source_ids = st.lists(st.integers(2, 12), min_size=1, max_size=25).map(lambda ids: [*ids, END])


@given(st.lists(source_ids, min_size=1, max_size=4), st.integers(1, 30), st.integers(1, 10), st.data())
@settings(max_examples=150, deadline=None)
def test_errors_of_advance_do_not_change_the_result(
    sources: list[list[int]], limit: int, draft: int, data: st.DataObject
) -> None:
    """Ties that the noise of `advance` would break are decided as `step` decides them."""
    common = {
        "prompt": torch.zeros(len(sources), data.draw(st.integers(1, 3)), dtype=torch.int64),
        "end_id": END,
        "pad_id": 0,
        "limit": limit,
    }
    ties = data.draw(st.sampled_from([0.0, 0.2]))
    rules = {
        "min_new_tokens": data.draw(st.integers(0, limit)),
        "repetition_penalty": data.draw(st.sampled_from([1.0, 1.0, 1.3, 3.5, 0.8])),
        "no_repeat_ngram_size": data.draw(st.sampled_from([0, 0, 1, 2, 3])),
    }
    copying = GenerationSettings(speculate=True, draft_tokens=draft, **rules)
    decoder = Script(sources, edited_copy, noise=1e-3, ties=ties)
    found = speculate_or_none(decoder, Plan(**common, settings=copying), sources)
    plan = Plan(**common, settings=GenerationSettings(**rules))
    try:
        greedy = decode(Script(sources, edited_copy, noise=1e-3, ties=ties), plan)
    except UserError:
        assert found is None, "greedy decoding has nothing left to write"
    else:
        assert found is not None and torch.equal(found, greedy.sequences)


def speculate_or_none(decoder: Script, plan: Plan, sources: list[list[int]]) -> Tensor | None:
    """The ids; None where rules leave nothing to write."""
    try:
        return speculate(decoder, plan, sources, tolerance=1e-3).sequences
    except UserError as error:
        assert "no token may follow" in str(error)
        return None


def test_copying_takes_fewer_passes() -> None:
    source = [*range(2, 20), 5, 9, 3, END]
    prompt, copying = torch.zeros(1, 1, dtype=torch.int64), GenerationSettings(speculate=True)
    plan = Plan(prompt=prompt, end_id=END, pad_id=0, limit=40, settings=copying)
    decoder = Script([source], lambda ids, fed: (ids + [0] * 40)[len(fed) - 1], noise=0.0, ties=0.0)
    assert speculate(decoder, plan, [source], 0.0).sequences[0].tolist() == [0, *source]
    assert decoder.passes <= 6


def test_the_more_rows_the_surer_a_guess_must_be() -> None:
    odds = Odds()
    lengths = [odds.worth(context=1, rows=rows) for rows in (1, 4, 16, 64)]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] > 5 and lengths[-1] == 0
    assert odds.worth(context=8, rows=16) > odds.worth(context=1, rows=16), "a longer context says more"


def test_guesses_that_fail_are_given_up_and_taken_up_again() -> None:
    odds = Odds()
    for _ in range(60):
        odds.learn(context=1, first=False, verified=odds.worth(context=1, rows=1), accepted=0)
    assert odds.worth(context=1, rows=1) == 0
    assert odds.worth(context=5, rows=1) > 0, "other contexts are judged by themselves"
    for _ in range(60):
        odds.learn(context=1, first=True, verified=0, accepted=0)
    assert odds.worth(context=1, rows=1) > 5, "what was not verified is not learnt from"


def test_runs_that_break_off_make_guesses_shorter() -> None:
    def worth(accepted: int) -> int:
        odds = Odds()
        for _ in range(30):
            odds.learn(context=4, first=True, verified=10, accepted=accepted)
        return odds.worth(context=4, rows=2)

    lengths = [worth(accepted) for accepted in (1, 3, 10)]
    assert lengths == sorted(lengths) and lengths[0] < 3 and lengths[-1] > 20


def test_a_batch_that_copies_nothing_is_hardly_verified() -> None:
    """Guesses from a source that has the tokens, but never in the order in which they are written."""
    sources = [[*range(2, 18), END]] * 8
    plan = Plan(
        prompt=torch.zeros(8, 1, dtype=torch.int64),
        end_id=END,
        pad_id=0,
        limit=60,
        settings=GenerationSettings(speculate=True),
    )
    written = [int(x) for x in torch.randint(2, 18, (60,), generator=torch.Generator().manual_seed(1))]
    decoder = Script(sources, lambda ids, fed: written[len(fed) - 1], noise=0.0, ties=0.0)
    assert speculate(decoder, plan, sources, 0.0).sequences[3].tolist() == [0, *written]
    assert sum(width > 1 for width in decoder.widths) < 15


def test_guesses_follow_the_longest_context() -> None:
    copier = Copier([5, 6, 7, 8, 9, 6, 7, 3, 4, END], END)
    copier.write([9, 6, 7])
    assert copier.guess(2) == [3, 4]
    assert copier.guess(9) == [3, 4, END], "a guess goes on behind the end"
    copier = Copier([5, 6, END], END)
    copier.write([8, 9, 8])
    assert copier.guess(5) == [9, 8], "what was written is not looked at"
    copier.write([2])
    assert copier.guess(5) == []


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is guessed is verified, in large batches too."""
    monkeypatch.setattr(Odds, "worth", lambda odds, context, rows: 100)


@pytest.fixture(scope="module")
def copyist() -> T5ForConditionalGeneration:
    """A tiny T5 trained for seconds to copy its input with every token 2k + 3 turned into 2k + 4."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY, d_model=48, d_kv=16, d_ff=64, num_layers=1, num_heads=3, dropout_rate=0.0
    )
    model = T5ForConditionalGeneration(config)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.0)
    for seed in range(500):
        inputs, _ = batch_of_texts(seed, 32, 8)
        labels = torch.where((inputs > 2) & (inputs % 8 == 3), inputs + 1, inputs)
        loss = model(inputs, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def batch_of_texts(seed: int, rows: int, length: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randint(3, VOCABULARY - 1, (rows, length), generator=generator)
    inputs[:, -1] = END
    return inputs, torch.ones_like(inputs)


#: Rules that change what greedy decoding writes.
RULES: list[dict[str, Any]] = [
    {},
    {"repetition_penalty": 1.4},
    {"repetition_penalty": 0.7, "min_new_tokens": 3},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 3, "repetition_penalty": 1.1, "min_new_tokens": 12},
]


def check_copying(model: T5ForConditionalGeneration, seeds: range, rows: int, **options: Any) -> int:
    """How many of these random sources come out as greedy decoding writes them: all, or the test fails."""
    for seed in seeds:
        ids, mask = padded_batch(5000 + seed, rows=rows)
        greedy = model.generate(ids, mask, max_new_tokens=14, **options)
        found = model.generate(ids, mask, max_new_tokens=14, speculate=True, **options)
        assert torch.equal(found, greedy)
    return len(seeds) * rows


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("rules", RULES, ids=str)
def test_hundreds_of_sources_come_out_as_greedy_writes_them(
    copyist: T5ForConditionalGeneration, rules: dict[str, Any]
) -> None:
    assert check_copying(copyist, range(10), 40, **rules) == 400


@pytest.mark.long
@pytest.mark.parametrize("guesses", ["far", "as they are"])
@pytest.mark.parametrize("rules", RULES, ids=str)
def test_thousands_of_sources_come_out_as_greedy_writes_them(
    copyist: T5ForConditionalGeneration, rules: dict[str, Any], guesses: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if guesses == "far":
        monkeypatch.setattr(Odds, "worth", lambda odds, context, rows: 100)
    assert check_copying(copyist, range(100, 150), 40, **rules) == 2000
    assert check_copying(copyist, range(200, 700), 1, **rules) == 500


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8"])
def test_low_precision_comes_out_as_greedy_writes_it(
    copyist: T5ForConditionalGeneration, dtype: str, tmp_path: Path
) -> None:
    copyist.save_pretrained(tmp_path)
    model = T5ForConditionalGeneration.from_pretrained(tmp_path, dtype=dtype)
    for rules in RULES[::2]:
        assert check_copying(model, range(5), 40, **rules) == 200


def test_a_model_that_copies_takes_fewer_passes(
    copyist: T5ForConditionalGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = {True: 0, False: 0}

    def counted(feed: Any) -> Any:
        def call(*arguments: Any) -> Tensor:
            passes[mode] += 1
            return feed(*arguments)

        return call

    for name in ("step", "advance"):
        monkeypatch.setattr(T5Decoder, name, counted(getattr(T5Decoder, name)))
    for seed in range(40):
        for mode in passes:
            copyist.generate(*batch_of_texts(seed, 1, 10), max_new_tokens=14, speculate=mode)
    assert passes[True] < 0.75 * passes[False], "guesses are hardly ever right: other tests show nothing"


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("draft_tokens", [1, 3, 12])
def test_random_models_write_what_greedy_writes(pair: Any, draft_tokens: int) -> None:
    """Random models repeat themselves: guesses from what was written are often right."""
    for seed in range(40):
        ours, _ = pair(seed % 4)
        ids, mask = padded_batch(seed, rows=12)
        options = {"max_new_tokens": 24, "min_new_tokens": seed % 5, "return_scores": True}
        options["decoder_prefix_ids"] = [9, 4][: seed % 3] or None
        options["repetition_penalty"] = (1.0, 1.5)[seed % 2]
        greedy = ours.generate(ids, mask, **options)
        found = ours.generate(ids, mask, speculate=True, draft_tokens=draft_tokens, **options)
        assert torch.equal(found.sequences, greedy.sequences)
        torch.testing.assert_close(found.token_scores, greedy.token_scores, atol=1e-3, rtol=1e-3)
