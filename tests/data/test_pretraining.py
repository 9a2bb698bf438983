"""Chunks of T5 and segments of ELECTRA, as the references cut them."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numbered_corpus import Pack, numbered

from unmask.data import pretraining
from unmask.data.pretraining import (
    MaskedDiffusion,
    ReplacedTokens,
    TextToText,
    _cut_segments,
    _document_parts,
)
from unmask.data.ragged import Batch
from unmask.data.shards import Split
from unmask.data.stream import EvaluationBatches, TrainingBatches
from unmask.errors import UserError
from unmask.objectives.randomness import generator
from unmask.objectives.span_corruption import chunk_length, restore
from unmask.objectives.text_to_text import Ids, T5Objective, denoisers

SENTINELS = np.arange(999, 899, -1)
EOS = 1
MODES = {"[NLU]": [880, 881], "[NLG]": [880, 882], "[S2S]": [880, 883]}
IDS = Ids(EOS, SENTINELS, np.arange(3, 900), MODES)
CLS, SEP, MASK = 2, 3, 4


def _rows(stream: np.ndarray, lengths: np.ndarray) -> list[list[int]]:
    return [row.tolist() for row in np.split(stream, np.cumsum(lengths)[:-1])]


def _source(split: Split, objective: T5Objective, inputs_length: int = 32, **changed: float) -> TextToText:
    return TextToText(split, denoisers(objective, inputs_length, IDS, **changed))


def _spans(split: Split, inputs_length: int = 32, **changed: float) -> TextToText:
    return _source(split, "span-corruption", inputs_length, **changed)


def _replaced(split: object, max_length: int = 32, **changed: object) -> ReplacedTokens:
    return ReplacedTokens(  # type: ignore[arg-type]
        split,
        max_length=max_length,
        cls_id=CLS,
        sep_id=SEP,
        mask_id=MASK,
        special_ids=[0, CLS, SEP, MASK],
        **changed,
    )


# --- T5 --------------------------------------------------------------------------------------------------


def _texts(batch: Batch) -> list[list[int]]:
    inputs = _rows(batch["inputs"], batch["input_lengths"])
    targets = _rows(batch["targets"], batch["target_lengths"])
    return [
        restore(np.array(one), np.array(two), sentinel_ids=SENTINELS, eos_id=EOS).tolist()
        for one, two in zip(inputs, targets, strict=True)
    ]


def test_chunks_are_the_concatenated_documents_cut(pack: Pack) -> None:
    documents = numbered([5], [90, 31], [1], [2], [40])
    source = _spans(pack(documents).train)
    texts = [text for batch in EvaluationBatches(source, batch_size=2, seed=0) for text in _texts(batch)]
    assert [len(text) for text in texts[:-1]] == [chunk_length(32)[0]] * (len(texts) - 1)
    stream = [token for text in texts for token in text]
    # Documents whole, in some order, nothing between them.
    assert sorted(stream) == list(range(1000, 1000 + 169))
    starts = [i for i, token in enumerate(stream) if i == 0 or token != stream[i - 1] + 1]
    assert len(starts) <= len(documents)


def _tokens_of(batch: Batch, objective: T5Objective) -> list[list[int]]:
    """The tokens of the text that each row was made of, in any order; every one of the corpus is another id."""
    inputs = _rows(batch["inputs"], batch["input_lengths"])
    targets = _rows(batch["targets"], batch["target_lengths"])
    whole = objective in ("bert-style", "mass-style", "deshuffling", "causal-lm")
    return [
        [token for token in (target if whole else source + target) if token >= 1000]
        for source, target in zip(inputs, targets, strict=True)
    ]


@pytest.mark.parametrize("objective", get_args(T5Objective))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 80), min_size=1, max_size=12),
    batch_size=st.integers(1, 6),
    seed=st.integers(0, 2**40),
)
def test_no_token_is_lost_or_repeated_in_an_epoch_of_text_to_text(
    pack: Pack, objective: T5Objective, lengths: list[int], batch_size: int, seed: int
) -> None:
    source = _source(pack(numbered(*([length] for length in lengths))).train, objective)
    batches = TrainingBatches(source, batch_size=batch_size, seed=seed)
    total, read, k = sum(lengths), [], 0
    while len(read) < 2 * total:
        batch = batches[k]
        assert set(batch) == {"inputs", "targets", "input_lengths", "target_lengths"}
        assert len(batch["input_lengths"]) == batch_size
        assert max(batch["input_lengths"].max(), batch["target_lengths"].max()) <= 32
        read += [token for text in _tokens_of(batch, objective) for token in text]
        k += 1
    for epoch in range(2):
        assert sorted(read[epoch * total : (epoch + 1) * total]) == list(range(1000, 1000 + total))


def test_ul2s_shares_and_modes(pack: Pack) -> None:
    split = pack([[[1000] * 40_000], [[1000] * 160_000]]).train
    batch = TrainingBatches(_source(split, "ul2", 64), batch_size=2000, seed=0)[0]
    inputs = _rows(batch["inputs"], batch["input_lengths"])
    modes = np.array([row[:2] for row in inputs])
    assert (modes[:, 0] == 880).all()
    shares = [float((modes[:, 1] == second).mean()) for second in (881, 882, 883)]
    assert shares == pytest.approx([0.8 / 3, 0.8 * 2 / 3, 0.2], abs=0.03)
    marked = np.array([any(900 <= token <= 999 for token in row) for row in inputs])
    assert (marked == (modes[:, 1] != 883)).all(), "all but prefix LM mark their spans"
    # Pieces are as long as their denoiser takes, so that inputs are full whatever it is, but for prefixes.
    full = batch["input_lengths"] == 64
    assert full[modes[:, 1] != 883].mean() > 0.99
    assert 0.7 < batch["input_lengths"][modes[:, 1] == 883].mean() / 64 < 0.8


def test_a_recipes_lengths_are_filled_exactly(pack: Pack) -> None:
    source = _spans(pack([[[7] * 568 * 4]]).train, 512)
    batch = TrainingBatches(source, batch_size=4, seed=0)[0]
    assert source.size == 4
    assert batch["input_lengths"].tolist() == [512] * 4
    assert batch["target_lengths"].tolist() == [114] * 4


def test_chunks_and_noise_change_from_epoch_to_epoch(pack: Pack) -> None:
    source = _spans(pack(numbered(*([9] for _ in range(30)))).train)
    batches = TrainingBatches(source, batch_size=source.size, seed=0)
    one, two = ({tuple(text) for text in _texts(batches[k])} for k in range(2))
    assert len(one & two) <= 1


def test_equal_batches_are_damaged_in_different_places(pack: Pack) -> None:
    spans = _spans(pack([[[7] * 600]]).train)
    whole = [TrainingBatches(spans, batch_size=4, seed=0)[k]["inputs"] for k in range(4)]
    assert len({bytes(inputs) for inputs in whole}) == 4
    replaced = _replaced(pack([[[7] * 29]] * 40).train)
    drawn = [TrainingBatches(replaced, batch_size=40, seed=0)[k]["drawn"] for k in range(4)]
    assert len({bytes(positions) for positions in drawn}) == 4


# --- ELECTRA ---------------------------------------------------------------------------------------------


def _segments_by_the_book(
    lines: list[int], max_length: int, keep_overflow: bool, rng: np.random.Generator
) -> list[tuple[int, int, int]]:
    """`ExampleBuilder` of build_pretraining_dataset.py on one document's line lengths, a line at a time."""
    found = []
    start, lines = 0, list(lines)
    while lines:
        is_short, is_single, is_generous = (rng.random((3, 1)) < [[0.05], [0.1], [0.5]])[:, 0]
        random_target = int(rng.integers(5, max_length + 1, 1)[0])
        target = random_target if is_short else max_length
        first_target = 100_000 if is_single else (target - 3) // 2
        taken: list[int] = []
        while lines and sum(taken) < target:
            taken.append(lines.pop(0))
        first = second = 0
        for line in taken:
            if second == 0 and (
                first == 0 or first + line < first_target or (first < first_target and is_generous)
            ):
                first += line
            else:
                second += line
        first = min(first, max_length - 2)
        second = min(second, max(0, max_length - first - 3))
        found.append((start, first, second))
        rest = sum(taken) - first - second
        if keep_overflow and rest:
            start += first + second
            lines = _last(taken, rest) + lines
        else:
            start += sum(taken)
    return found


def _last(lines: list[int], count: int) -> list[int]:
    """The lengths of lines that hold the last `count` tokens, the first of them cut."""
    kept: list[int] = []
    for line in reversed(lines):
        if count:
            kept.insert(0, min(line, count))
            count -= kept[0]
    return kept


@given(
    lines=st.lists(st.integers(1, 45), min_size=1, max_size=60),
    max_length=st.integers(5, 40),
    keep_overflow=st.booleans(),
    seed=st.integers(0, 2**40),
)
def test_segments_are_cut_as_the_reference_cuts_them(
    lines: list[int], max_length: int, keep_overflow: bool, seed: int
) -> None:
    line_starts = np.cumsum([0, *lines])
    whole = np.array([0]), np.array([sum(lines)])
    cuts = _cut_segments(line_starts, *whole, max_length, keep_overflow, generator(seed, "test"))
    expected = _segments_by_the_book(lines, max_length, keep_overflow, generator(seed, "test"))
    assert list(zip(*(column.tolist() for column in cuts), strict=True)) == expected


def _check_row(tokens: list[int], types: list[int], max_length: int) -> list[int]:
    """The text of an example whose special tokens and segments are where they should be."""
    assert len(tokens) <= max_length
    assert tokens[0] == CLS
    assert tokens[-1] == SEP
    seps = [i for i, token in enumerate(tokens) if token == SEP]
    assert len(seps) <= 2
    assert types == [0] * (seps[0] + 1) + [1] * (len(tokens) - seps[0] - 1)
    text = [token for token in tokens if token >= 1000]
    assert len(text) == len(tokens) - 1 - len(seps)
    assert text == list(range(text[0], text[0] + len(text))), "an example is one run of its document"
    return text


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=8), min_size=1, max_size=8),
    batch_size=st.integers(1, 6),
    seed=st.integers(0, 2**40),
)
def test_no_token_is_lost_or_repeated_in_an_epoch_of_replaced_tokens(
    pack: Pack, lengths: list[list[int]], batch_size: int, seed: int
) -> None:
    split = pack(numbered(*lengths)).train
    batches = TrainingBatches(_replaced(split), batch_size=batch_size, seed=seed)
    total = sum(map(sum, lengths))
    starts = set(split.document_starts.tolist())
    k, read = 0, []
    while len(read) < 2 * total:
        batch = batches[k]
        assert len(batch["lengths"]) == batch_size
        types = _rows(batch["token_types"], batch["lengths"])
        for tokens, own_types in zip(_rows(batch["tokens"], batch["lengths"]), types, strict=True):
            text = _check_row(tokens, own_types, 32)
            assert not starts & {token - 1000 for token in text[1:]}, "an example ends with its document"
            read += text
        k += 1
    for epoch in range(2):
        assert sorted(read[epoch * total : (epoch + 1) * total]) == list(range(1000, 1000 + total))


def test_dropping_the_overflow_as_the_reference_does(pack: Pack) -> None:
    split = pack(numbered([50, 50, 10])).train
    kept, dropped = (
        sum(
            int((batch["tokens"] >= 1000).sum())
            for batch in EvaluationBatches(_replaced(split, keep_overflow=keep), batch_size=4, seed=0)
        )
        for keep in (True, False)
    )
    assert kept == 110
    assert dropped < 80


def test_shares_of_short_and_of_single_segment_examples(pack: Pack) -> None:
    split = pack([[[7] * 10] * 60_000], validation_share=0.0).train
    batch = TrainingBatches(_replaced(split, max_length=64), batch_size=8000, seed=0)[0]
    is_single = np.bincount(np.repeat(np.arange(8000), batch["lengths"]), batch["token_types"]) == 0
    # Of the short ones, some end before there is anything for B.
    assert abs(is_single.mean() - 0.1) < 0.02
    assert abs((batch["lengths"] < 60).mean() - 0.05 * 50 / 60) < 0.01


def test_very_long_documents_are_cut_for_planning_without_loss(pack: Pack) -> None:
    split = pack([[[7] * 100] * 1500]).train
    batches = EvaluationBatches(_replaced(split, max_length=128), batch_size=512, seed=0)
    assert sum(int((batch["tokens"] == 7).sum()) for batch in batches) == 150_000
    ((starts, ends),) = _document_parts(split)
    assert (np.diff([*starts, ends[-1]]) <= (1 << 16) + 100).all()
    assert len(starts) == 3


def test_documents_are_cut_some_at_a_time_without_loss(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan of a large corpus takes no more memory than its table."""
    split = pack(numbered(*[[7] * lines for lines in (1, 30, 2, 5, 90, 1, 1, 4)])).train
    together = _replaced(split).plan(generator(0, "test"))
    monkeypatch.setattr(pretraining, "LINES_AT_ONCE", 16)
    parts = list(_document_parts(split))
    assert len(parts) > 3
    assert np.concatenate([starts for starts, _ in parts]).tolist() == split.document_starts[:-1].tolist()
    assert np.concatenate([ends for _, ends in parts]).tolist() == split.document_starts[1:].tolist()
    plan = _replaced(split).plan(generator(0, "test"))
    for one in (together, plan):
        tokens = one.fetch(np.arange(len(one)))["tokens"]
        assert tokens[tokens >= 1000].tolist() == list(range(1000, 1000 + split.tokens))


def test_drawn_positions_and_what_the_generator_sees(pack: Pack) -> None:
    source = _replaced(pack(numbered([8] * 200)).train)
    batch = TrainingBatches(source, batch_size=40, seed=0)[0]
    assert batch["drawn"].dtype == np.int64
    assert {name for name, values in batch.items() if values.dtype == np.int32} == {
        "tokens",
        "lengths",
        "token_types",
        "masked",
    }
    assert (batch["tokens"][batch["drawn"]] >= 1000).all()
    changed = np.flatnonzero(batch["masked"] != batch["tokens"])
    assert set(changed) < set(batch["drawn"])
    assert set(batch["masked"][changed]) == {MASK}


def test_masked_diffusion_hides_all_that_it_draws(pack: Pack) -> None:
    source = MaskedDiffusion(
        pack(numbered([8] * 200)).train,
        max_length=32,
        cls_id=CLS,
        sep_id=SEP,
        mask_id=MASK,
        special_ids=[CLS, SEP, MASK],
    )
    batch = TrainingBatches(source, batch_size=40, seed=0)[0]
    changed = np.flatnonzero(batch["masked"] != batch["tokens"])
    assert changed.tolist() == batch["drawn"].tolist()
    assert (batch["masked"][changed] == MASK).all()
    assert (batch["tokens"][changed] >= 1000).all()
    assert len(batch["weights"]) == len(changed)
    rows = np.repeat(np.arange(40), batch["lengths"])
    for row in range(40):
        mine = rows[changed] == row
        ordinary = ((batch["tokens"] >= 1000) & (rows == row)).sum()
        assert batch["weights"][mine] == pytest.approx(ordinary / mine.sum())


# --- settings that cannot work ---------------------------------------------------------------------------


def test_settings_that_cannot_work_are_refused_at_once(pack: Pack) -> None:
    split = pack(numbered([8] * 20)).train
    with pytest.raises(
        UserError,
        match=r"inputs of 2048 tokens \(density 0.15, mean span 3.0\) need 114 sentinels and the vocabulary has 100",
    ):
        _spans(split, 2048)
    with pytest.raises(UserError, match="noise density is 2"):
        _spans(split, density=2)
    with pytest.raises(UserError, match=r"ul2 needs at least 6, \[NLU\] takes 2"):
        _source(split, "ul2", 5)
    with pytest.raises(UserError, match="max_length is 4"):
        _replaced(split, 4)
    with pytest.raises(UserError, match="mask rate is 0"):
        _replaced(split, mask_rate=0)


def test_an_empty_split_says_what_to_do(pack: Pack) -> None:
    split = pack(numbered([8])).validation
    with pytest.raises(UserError, match="the validation split is empty: give more documents"):
        _spans(split)
    with pytest.raises(UserError, match="the validation split is empty: give more documents"):
        _replaced(split)


def test_electra_needs_lines(pack: Pack) -> None:
    with pytest.raises(UserError, match="pack the corpus by line"):
        _replaced(pack(numbered([8]), by_line=False).train)
