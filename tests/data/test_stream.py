"""Batch k is a function of (source, batch size, seed, k), however it is read."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import grain
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_corpus import NumberTokenizer, Pack, numbered

from unmask.data.finetuning import Pairs
from unmask.data.pretraining import ReplacedTokens, TextToText
from unmask.data.ragged import Batch, rank_rows, row_lengths, take_rows
from unmask.data.shard_writing import write_shards
from unmask.data.shards import Split
from unmask.data.stream import EvaluationBatches, Growth, Source, TrainingBatches, read_ahead
from unmask.errors import UserError
from unmask.objectives.text_to_text import Ids, T5Objective, denoisers
from unmask.objectives.ul2 import MODES

SOURCES = ["span-corruption", "ul2", "replaced", "pairs"]


def _denoised(split: Split, objective: T5Objective, length: int) -> TextToText:
    modes = {mode: [number] for number, mode in enumerate(MODES, start=10)}
    ids = Ids(1, np.arange(999, 900, -1), np.arange(3, 900), modes)
    return TextToText(split, denoisers(objective, length, ids))


def _replaced(split: Split, length: int) -> ReplacedTokens:
    return ReplacedTokens(split, max_length=length, cls_id=2, sep_id=3, mask_id=4, special_ids=[0, 2, 3, 4])


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, pack: Pack) -> Source:
    """Small enough that a few batches make an epoch."""
    lengths = np.random.default_rng(0).integers(1, 30, (40, 6)).tolist()
    if request.param == "pairs":
        return Pairs([[i, i + 1] for i in range(45)], [[i] * (1 + i % 4) for i in range(45)])
    split = pack(numbered(*lengths)).train
    if request.param in ("span-corruption", "ul2"):
        return _denoised(split, request.param, 64)
    return _replaced(split, 64)


def _equal(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_any_order_of_reading_gives_the_same_batches(source: Source) -> None:
    batches = [TrainingBatches(source, batch_size=7, seed=5)[k] for k in range(40)]
    again = TrainingBatches(source, batch_size=7, seed=5)
    assert again.batches_per_epoch < 20, "the test should cross epochs"
    for k in [39, 0, 17, 3, 38, 21, 1]:
        assert _equal(again[k], batches[k])
    assert not any(_equal(one, other) for one, other in pairwise(batches))


@pytest.mark.parametrize("threads", [0, 1, 16])
def test_grain_reads_ahead_in_threads_and_restarts_in_the_middle(source: Source, threads: int) -> None:
    batches = TrainingBatches(source, batch_size=7, seed=5)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=16)
    whole = list(batches.slice(slice(0, 30)).to_iter_dataset(options))
    assert len(whole) == 30
    assert all(_equal(batch, batches[k]) for k, batch in enumerate(whole))
    fresh = TrainingBatches(source, batch_size=7, seed=5)
    rest = list(fresh.slice(slice(13, 30)).to_iter_dataset(options))
    assert all(_equal(one, other) for one, other in zip(rest, whole[13:], strict=True))


def test_reading_processes_get_the_same_batches(source: Source) -> None:
    batches = TrainingBatches(source, batch_size=7, seed=5)
    before = batches[20]
    sent = pickle.loads(pickle.dumps(batches))  # noqa: S301
    assert _equal(sent[20], before)


def test_batches_that_begin_small(source: Source) -> None:
    grown = TrainingBatches(source, batch_size=7, seed=5, growth=Growth(2, 10))
    rows = [len(row_lengths(grown[k])) for k in range(14)]
    assert rows == [2, 2, 3, 4, 4, 4, 5, 6, 6, 6, 7, 7, 7, 7]
    # The same examples in the same order as without, but for which of them share a batch.
    sequence = TrainingBatches(source, batch_size=1, seed=5)._cut
    seen = np.concatenate([grown._cut.examples(k) for k in range(14)])
    assert np.array_equal(seen, np.concatenate([sequence.examples(k) for k in range(sum(rows))]))


def test_another_seed_is_another_stream(source: Source) -> None:
    one, other = (TrainingBatches(source, batch_size=7, seed=seed) for seed in (0, 1))
    assert not any(_equal(one[k], other[k]) for k in range(5))


def test_evaluation_is_one_fixed_pass(source: Source) -> None:
    one, other = (EvaluationBatches(source, batch_size=7, seed=0) for _ in range(2))
    assert all(_equal(one[k], other[len(one) + k]) for k in range(len(one)))
    lengths = "lengths" if "lengths" in one[0] else "input_lengths"
    sizes = [len(one[k][lengths]) for k in range(len(one))]
    assert set(sizes[:-1]) == {7}
    assert 0 < sizes[-1] <= 7


@given(count=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(-5, 2**70))
def test_each_epoch_has_every_example_once(count: int, batch_size: int, seed: int) -> None:
    batches = TrainingBatches(
        Pairs([[i] for i in range(count)], [[i] for i in range(count)]), batch_size=batch_size, seed=seed
    )
    assert batches.batches_per_epoch == count / batch_size
    epochs = 3
    read = [batches[k]["inputs"] for k in range(-(-epochs * count // batch_size))]
    assert {len(inputs) for inputs in read} == {batch_size}
    stream = np.concatenate(read)
    for epoch in range(epochs):
        assert sorted(stream[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_epochs_have_orders_of_their_own() -> None:
    batches = TrainingBatches(Pairs([[i] for i in range(30)], [[1]] * 30), batch_size=30, seed=0)
    orders = {tuple(batches[k]["inputs"]) for k in range(20)}
    assert len(orders) == 20
    followers = Counter(pair for order in orders for pair in pairwise(order))
    assert max(followers.values()) < 8


def test_a_late_batch_needs_no_early_one() -> None:
    batches = TrainingBatches(Pairs([[1]] * 3, [[1]] * 3), batch_size=2, seed=0)
    assert len(batches[10**15]["inputs"]) == 2


# --- mixtures and budgets --------------------------------------------------------------------------------


def _pairs(first: int, count: int, longest: int = 9) -> Pairs:
    """Inputs that say their number, again and again."""
    draw = np.random.default_rng(first)
    lengths = draw.integers(1, longest, count)
    return Pairs([[first + i] * int(n) for i, n in enumerate(lengths)], [[i] for i in range(count)])


def _examples(batch: Batch) -> list[int]:
    """The numbers of a batch of such pairs."""
    lengths = batch["input_lengths"]
    return [int(number) for number in batch["inputs"][np.cumsum(lengths) - lengths]]


MIXED = {"web": (0, 30), "books": (100, 12), "notes": (200, 5)}


@settings(max_examples=25, deadline=None)
@given(
    rates=st.tuples(*[st.sampled_from([0.5, 1, 2, 7]) for _ in MIXED]),
    size=st.sampled_from([{"batch_size": 1}, {"batch_size": 10}, {"batch_tokens": 10}, {"batch_tokens": 64}]),
    seed=st.integers(0, 2**40),
)
def test_a_mixture_keeps_its_rates_and_each_sources_epochs(
    rates: tuple[float, ...], size: dict[str, int], seed: int
) -> None:
    sources = {name: _pairs(*numbers) for name, numbers in MIXED.items()}
    batches = TrainingBatches(sources, rates=dict(zip(MIXED, rates, strict=True)), seed=seed, **size)
    epoch = sum(count for _, count in MIXED.values())
    seen: list[int] = []
    for k in range(10_000):
        if len(seen) >= 6 * epoch and len(seen) % epoch == 0:
            break
        seen += _examples(batches[k])
    assert len(seen) % epoch == 0, "stretches end with a batch"
    for (first, count), rate in zip(MIXED.values(), rates, strict=True):
        own = Counter(number for number in seen if first <= number < first + count)
        assert abs(own.total() - len(seen) * rate / sum(rates)) <= len(MIXED)
        # So many epochs whole, and of the next one each example at most once.
        assert {own[first + i] - own.total() // count for i in range(count)} <= {0, 1}


def test_the_same_source_twice_has_two_orders() -> None:
    batches = TrainingBatches({"a": _pairs(0, 50), "b": _pairs(100, 50)}, batch_size=100, seed=0)
    order = batches[0]["targets"]
    assert sorted(order) == sorted([*range(50), *range(50)])
    # With one row a batch, "a" and "b" take turns.
    rows = [
        TrainingBatches({"a": _pairs(0, 50), "b": _pairs(100, 50)}, batch_size=1, seed=0)[k]
        for k in range(100)
    ]
    turns = [int(row["targets"][0]) for row in rows]
    assert turns[::2] != turns[1::2]


def test_adding_a_source_leaves_the_others_order() -> None:
    def order(*names: str) -> list[int]:
        sources = {name: _pairs(*MIXED[name]) for name in names}
        batches = TrainingBatches(sources, batch_size=1, seed=0)
        numbers = [_examples(batches[k])[0] for k in range(80)]
        return [number for number in numbers if number < 100][:20]

    assert order("web", "books") == order("web", "books", "notes")


def test_rows_of_a_mixture_are_in_order_of_length() -> None:
    batch = TrainingBatches(
        {name: _pairs(*numbers) for name, numbers in MIXED.items()}, batch_size=30, seed=0
    )[0]
    assert (np.diff(batch["input_lengths"]) >= 0).all()
    assert {number // 100 for number in _examples(batch)} == {0, 1, 2}


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 60), batch_tokens=st.integers(10, 80), seed=st.integers(0, 2**40))
def test_batches_of_a_budget_hold_each_example_once_an_epoch(
    count: int, batch_tokens: int, seed: int
) -> None:
    batches = TrainingBatches(_pairs(0, count), batch_tokens=batch_tokens, seed=seed)
    seen: list[list[int]] = [[], []]
    k = 0
    for epoch in seen:
        while len(epoch) < count:
            batch = batches[k]
            assert len(batch["inputs"]) + len(batch["targets"]) <= batch_tokens
            epoch += _examples(batch)
            k += 1
        assert sorted(epoch) == list(range(count))
    if count > 20:
        assert seen[0] != seen[1]


def test_every_token_of_a_corpus_is_in_one_batch_of_a_budget(pack: Pack) -> None:
    lengths = np.random.default_rng(1).integers(1, 30, (40, 6)).tolist()
    batches = TrainingBatches(_replaced(pack(numbered(*lengths)).train, 64), batch_tokens=500, seed=0)
    read = [batches[k] for k in range(int(batches.batches_per_epoch))]
    assert max(len(batch["tokens"]) for batch in read) <= 500
    tokens = np.concatenate([batch["tokens"] for batch in read])
    assert sorted(tokens[tokens >= 1000]) == list(range(1000, 1000 + sum(map(sum, lengths))))
    assert len(tokens) > 0.9 * 500 * len(read)


def test_evaluation_with_a_budget_is_one_fixed_pass() -> None:
    one, other = (EvaluationBatches(_pairs(0, 40), batch_tokens=30, seed=0) for _ in range(2))
    assert all(_equal(one[k], other[k]) for k in range(len(one)))
    assert sorted(number for k in range(len(one)) for number in _examples(one[k])) == list(range(40))
    assert max(len(one[k]["inputs"]) + len(one[k]["targets"]) for k in range(len(one))) <= 30


def test_the_plan_of_a_budget_is_kept_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(**changes: int) -> TrainingBatches:
        return TrainingBatches(_pairs(0, 40), **{"batch_tokens": 30, "seed": 0} | changes, plans=tmp_path)

    whole = [made()[k] for k in range(60)]
    assert len(list(tmp_path.iterdir())) > 2
    with monkeypatch.context() as patch:
        patch.setattr("unmask.data.stream.pack", lambda *_: pytest.fail("planned again"))
        assert _equal(made()[59], whole[59])
    # A damaged file, or one of another stream, is made again.
    (tmp_path / "batches-00001.npz").write_bytes(b"PK")
    (tmp_path / "batches-00002.npz").unlink()
    assert all(_equal(made()[k], whole[k]) for k in (0, 30, 59))
    assert [_examples(made(seed=1)[k]) for k in range(5)] == [
        _examples(TrainingBatches(_pairs(0, 40), batch_tokens=30, seed=1)[k]) for k in range(5)
    ]


# --- however it is read ----------------------------------------------------------------------------------

STEPS = 1000


@pytest.fixture(scope="module", params=["replaced-tokens", "ul2"])
def stream_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., TrainingBatches]:
    """Two corpora mixed in batches of a budget, written with shards of a size: epochs end within 1,000 batches."""

    def made(shard_tokens: int = 1 << 20, plans: Path | None = None) -> TrainingBatches:
        sources = {}
        for name, first, count in (("web", 1000, 2000), ("books", 20_000, 300)):
            lengths = np.random.default_rng(first).integers(1, 12, (count // 20, 20)).tolist()
            texts = [
                "\n".join(" ".join(map(str, line)) for line in lines)
                for lines in numbered(*lengths, first=first)
            ]
            split = write_shards(
                texts,
                NumberTokenizer(),
                tmp_path_factory.mktemp("shards") / name,
                validation_share=0.0,
                by_line=True,
                shard_tokens=shard_tokens,
            ).train
            is_electra = request.param == "replaced-tokens"
            sources[name] = _replaced(split, 32) if is_electra else _denoised(split, "ul2", 32)
        return TrainingBatches(sources, batch_tokens=100, rates={"web": 3, "books": 1}, seed=1, plans=plans)

    return made


@pytest.fixture(scope="module")
def thousand(stream_of: Callable[..., TrainingBatches]) -> list[Batch]:
    batches = stream_of()
    return [batches[k] for k in range(STEPS)]


def _same(found: Sequence[Batch], expected: Sequence[Batch]) -> bool:
    return len(found) == len(expected) and all(map(_equal, found, expected))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_thousand_batches_read_by_processes(
    workers: int, stream_of: Callable[..., TrainingBatches], thousand: list[Batch], tmp_path: Path
) -> None:
    first = int(np.random.default_rng(workers).integers(1, STEPS - 100))  # a run killed there goes on
    assert _same(list(read_ahead(stream_of(plans=tmp_path), first, STEPS, workers=workers)), thousand[first:])


def test_a_thousand_batches_from_a_restart_and_from_other_shards(
    stream_of: Callable[..., TrainingBatches], thousand: list[Batch], tmp_path: Path
) -> None:
    assert len({next(iter(batch.values())).tobytes() for batch in thousand}) == STEPS
    other = stream_of(shard_tokens=300, plans=tmp_path)
    assert _same(list(read_ahead(other, 0, STEPS)), thousand)
    assert _same(list(read_ahead(stream_of(plans=tmp_path), 617, STEPS)), thousand[617:])


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_thousand_batches_shared_by_ranks(ranks: int, thousand: list[Batch]) -> None:
    for batch in thousand:
        shares = [rank_rows(batch, rank, ranks) for rank in range(ranks)]
        back = np.argsort(
            np.concatenate([np.arange(rank, len(row_lengths(batch)), ranks) for rank in range(ranks)])
        )
        whole = {name: np.concatenate([share[name] for share in shares]) for name in batch}
        if "drawn" in batch:  # places in the tokens of a share
            starts = np.cumsum([0, *(len(share["tokens"]) for share in shares)])
            moved = np.repeat(starts[:-1], [len(share["drawn"]) for share in shares])
            whole["drawn"] = whole["drawn"] + moved
        assert _equal(take_rows(whole, back), batch)


def test_a_killed_trainer_leaves_no_reader_behind() -> None:
    program = """
import grain
from unmask.data.stream import read_ahead
if __name__ == "__main__":
    for number in read_ahead(grain.MapDataset.range(10**9), 0, 10**9, workers=1):
        print(number, flush=True)
"""
    trainer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout is not None and trainer.stdout.readline() == "0\n"
    trainer.kill()
    # A reader holds the pipe open as long as it lives.
    trainer.communicate(timeout=60)


def test_what_is_no_batch() -> None:
    pairs = Pairs([[1]], [[1]])
    with pytest.raises(UserError, match="batch_size is 0"):
        TrainingBatches(pairs, batch_size=0, seed=0)
    for sizes in ({}, {"batch_size": 1, "batch_tokens": 1}):
        with pytest.raises(UserError, match="give one of batch_size"):
            TrainingBatches(pairs, **sizes, seed=0)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="an example has 2 tokens and batch_tokens is 1"):
        TrainingBatches(pairs, batch_tokens=1, seed=0)
    with pytest.raises(UserError, match="rates of a, c, sources a, b"):
        TrainingBatches({"a": pairs, "b": pairs}, rates={"a": 1, "c": 1}, batch_size=1, seed=0)
    with pytest.raises(IndexError):
        TrainingBatches(pairs, batch_size=1, seed=0)[-1]
