"""The sampler: the right distribution, decided by the uniform numbers alone."""

from __future__ import annotations

import math

import pytest
import torch

from unmask.nn import lines
from unmask.nn.sampling import sample, sample_and_likeliest, uniforms

LOGITS = torch.tensor([0.0, -math.inf, 1.0, 2.0, -1.0])


def test_each_interval_belongs_to_its_token() -> None:
    borders = torch.softmax(LOGITS.double(), -1).cumsum(-1)
    for token in (0, 2, 3, 4):
        low = 0.0 if token == 0 else borders[token - 1].item()
        for uniform in (low + 1e-6, borders[token].item() - 1e-6):
            assert sample(LOGITS[None], torch.tensor([uniform], dtype=torch.float64)) == token


@pytest.mark.parametrize("uniform", [0.0, 0.5, math.nextafter(1.0, 0.0)])
def test_impossible_tokens_are_never_drawn(uniform: float) -> None:
    numbers = torch.tensor([uniform], dtype=torch.float64)
    only = torch.full((1, 7), -math.inf)
    only[0, 3] = 0.0
    assert sample(only, numbers) == 3
    ends = torch.tensor([[-math.inf, 0.0, 0.0, -math.inf]])
    assert sample(ends, numbers) in (1, 2)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_frequencies(temperature: float) -> None:
    uniforms = torch.rand(50_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = sample(LOGITS.expand(50_000, -1), uniforms, temperature)
    found = torch.bincount(drawn, minlength=5) / 50_000
    torch.testing.assert_close(found, torch.softmax(LOGITS / temperature, -1), atol=0.01, rtol=0)


def test_rare_tokens_keep_their_share() -> None:
    # 30,000 equally rare tokens beside a common one: float32's Gumbel noise would lose some of them.
    logits = torch.zeros(1, 30_001)
    logits[0, 0] = math.log(1e6)
    heights = torch.softmax(logits.double(), -1).cumsum(-1)[0]
    for token in (1, 15_000, 30_000):
        middle = (heights[token - 1] + heights[token]) / 2
        found = sample(logits, middle[None])
        assert abs(int(found) - token) <= 1


@pytest.mark.skipif(not lines.available(torch.float32), reason="this processor lacks the instructions")
@pytest.mark.parametrize("temperature", [0.3, 1.0])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", [5, 1024, 5001])
def test_compiled_rows_draw_the_same(vocabulary: int, kind: torch.dtype, temperature: float) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(300, vocabulary) * 3).to(kind)
    numbers = torch.rand(300, dtype=torch.float64)
    numbers[:2] = torch.tensor([0.0, math.nextafter(1.0, 0.0)])
    drawn, likeliest = sample_and_likeliest(logits, numbers, temperature)
    values = logits.gather(1, likeliest[:, None])[:, 0]
    assert torch.equal(values, logits.amax(-1))
    # Exponentials differ in their last bits, so a uniform beside a border may fall to either side.
    assert (drawn != sample(logits, numbers, temperature)).sum() <= 1
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < vocabulary


@pytest.mark.skipif(not lines.available(torch.float32), reason="this processor lacks the instructions")
def test_compiled_rows_never_draw_what_is_impossible() -> None:
    only = torch.full((3, 70), -math.inf)
    only[:, 33] = 0.0
    numbers = torch.tensor([0.0, 0.5, math.nextafter(1.0, 0.0)], dtype=torch.float64)
    drawn, likeliest = sample_and_likeliest(only, numbers)
    assert drawn.tolist() == likeliest.tolist() == [33, 33, 33]


def test_uniforms_are_functions_of_seed_and_place() -> None:
    places = (torch.arange(200)[:, None] << 32) + torch.arange(512)
    numbers = uniforms(3, places)
    assert numbers.dtype == torch.float64
    assert 0 <= numbers.min() < 1e-4
    assert 1 - 1e-4 < numbers.max() < 1
    assert torch.equal(uniforms(3, places[7, 100:200]), numbers[7, 100:200])
    assert numbers.unique().numel() == numbers.numel()
    centred = numbers - 0.5
    limit = 5 / 12 / numbers.numel() ** 0.5
    assert abs(centred.mean().item()) < 5 * (1 / 12 / numbers.numel()) ** 0.5
    for lag in (1, 2, 8):
        assert abs((centred[:, lag:] * centred[:, :-lag]).mean().item()) < limit
        assert abs((centred[lag:] * centred[:-lag]).mean().item()) < limit
    for seed in (0, 4, -1, 2**63 - 1):
        assert abs((centred * (uniforms(seed, places) - 0.5)).mean().item()) < limit
