"""Requests that come and go: each is written as if it were alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from unmask.generation.continuous import ContinuousBatch
from unmask.generation.settings import GenerationSettings
from unmask.t5.config import T5Config
from unmask.t5.continuous import plan_of, start
from unmask.t5.engine import engine_of
from unmask.t5.model import T5ForConditionalGeneration

OPTIONS: list[dict[str, Any]] = [
    {},
    {"do_sample": True, "seed": 3, "top_k": 20},
    {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
    {"do_sample": True, "seed": 8, "temperature": 0.7, "min_new_tokens": 4},
]


@pytest.fixture(scope="module")
def model() -> T5ForConditionalGeneration:
    torch.manual_seed(2)
    config = T5Config(
        vocab_size=384, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, initializer_factor=2.0
    )
    made = T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        made.embedding.weight[1] *= 7
    return made


def _run(
    model: T5ForConditionalGeneration, seed: int, leaving: bool = False
) -> tuple[dict[int, list[int]], Any]:
    """Requests in random numbers at random steps → the ids of each, and the requests."""
    draw = random.Random(seed)
    wanted = []
    for number in range(30):
        source = [draw.randrange(3, 384) for _ in range(draw.randrange(1, 45))] + [1]
        prefix = [draw.randrange(3, 384) for _ in range(draw.choice((0, 0, 2, 5)))]
        wanted.append((source, prefix, OPTIONS[number % 4], draw.randrange(4, 40)))
    batch, ids = ContinuousBatch(), {number: [] for number in range(30)}
    waiting = list(range(30))
    gone: set[int] = set()
    with torch.inference_mode():
        while waiting or len(batch):
            coming = [waiting.pop(0) for _ in range(min(draw.choice((0, 1, 3)), len(waiting)))]
            if coming:
                plans = [
                    (n, plan_of(model, wanted[n][1], GenerationSettings(**wanted[n][2]), wanted[n][3]))
                    for n in coming
                ]
                batch.admit(lambda made, n=coming: start(model, [wanted[i][0] for i in n], made), plans)
            for written in batch.step() if len(batch) else []:
                assert written.error is None
                ids[written.request].append(written.id)
            if leaving and draw.random() < 0.2:
                number = draw.randrange(30)
                gone.add(number)
                batch.leave({number})
                waiting = [one for one in waiting if one != number]
    return {number: row for number, row in ids.items() if number not in gone}, wanted


def _alone(model: T5ForConditionalGeneration, request: Any) -> list[int]:
    source, prefix, options, limit = request
    found = model.generate(
        torch.tensor([source]), decoder_prefix_ids=prefix or None, max_new_tokens=limit, **options
    )
    return found[0, 1 + len(prefix) :].tolist()


@pytest.mark.parametrize("leaving", [False, True])
def test_rows_that_come_and_go_are_written_as_alone(model: T5ForConditionalGeneration, leaving: bool) -> None:
    written, wanted = _run(model, 1, leaving)
    assert len({len(row) for row in written.values()}) > 3
    for number, row in written.items():
        assert row == _alone(model, wanted[number]), number


def test_without_the_compiled_decoder(
    model: T5ForConditionalGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmask.t5.engine._fused_usable", lambda *_: False)
    other = T5ForConditionalGeneration(model.config).eval()
    other.load_state_dict(model.state_dict())
    written, wanted = _run(other, 2)
    assert not engine_of(other).is_fused
    for number, row in written.items():
        assert row == _alone(other, wanted[number]), number


def test_several_rows_of_a_source_do_not_join(model: T5ForConditionalGeneration) -> None:
    plan = plan_of(model, [], GenerationSettings(), 4)
    with torch.inference_mode():
        decoder, _ = start(model, [[5, 1]], [plan])
        decoder.select(torch.tensor([0, 0]))
        with pytest.raises(ValueError, match="one row for each source"):
            decoder.join(start(model, [[5, 1]], [plan])[0])
