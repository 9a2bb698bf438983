"""Electric: what the towers may see, the step by hand, and that energies tell text from nonsense."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from unmask.electra.config import ElectraConfig, generator_config
from unmask.electra.electric import Electric, ElectricLosses, score_texts
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.nn.ragged import Layout
from unmask.nn.sampling import uniforms
from unmask.objectives.randomness import generator
from unmask.objectives.replaced_tokens import draw_positions

ENERGY = ElectraConfig(
    vocab_size=20,
    embedding_size=8,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=12,
    initializer_range=0.4,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
NOISE = generator_config(ENERGY, 0.5)
LENGTHS = (5, 8, 3)
TOKENS = torch.tensor([2, 7, 8, 9, 3, 2, 11, 12, 13, 14, 15, 16, 3, 2, 9, 3])
ORDINARY = torch.tensor([1, 2, 3, 6, 7, 8, 9, 10, 11, 14])
DRAWN = torch.tensor([2, 7, 10, 14])
RATE = 0.3


@pytest.fixture
def both() -> Electric:
    torch.manual_seed(0)
    return Electric(NOISE, ENERGY)


def test_a_tower_sees_all_tokens_but_the_one_it_is_asked_for(both: Electric) -> None:
    layout = Layout.of(LENGTHS)
    before = both.noise(TOKENS, layout)
    for place in range(len(TOKENS)):
        changed = TOKENS.clone()
        changed[place] = 19
        moved = (both.noise(changed, layout) - before).abs().amax(-1) > 1e-6
        row = int(np.searchsorted(np.cumsum(LENGTHS), place, side="right"))
        first, end = sum(LENGTHS[:row]), sum(LENGTHS[: row + 1])
        expected = [first <= other < end and other != place for other in range(len(TOKENS))]
        assert moved.tolist() == expected


def test_a_row_does_not_depend_on_its_neighbours(both: Electric) -> None:
    together = both.noise(TOKENS, Layout.of(LENGTHS)).split(LENGTHS)
    for ids, row in zip(TOKENS.split(LENGTHS), together, strict=True):
        torch.testing.assert_close(both.noise(ids, Layout.of([len(ids)])), row, atol=1e-5, rtol=1e-4)


def by_hand(both: Electric, noise_seed: int) -> tuple[torch.Tensor, torch.Tensor, list[bool]]:
    """The paper's formulas in plain probabilities: both losses, and which samples are the original."""
    layout = Layout.of(LENGTHS)
    table = both.energy.encoder.embeddings.token.weight
    q = (both.noise(TOKENS, layout) @ table.T + both.noise.bias).softmax(-1)
    numbers = uniforms(noise_seed, layout.places[DRAWN])
    noised, equal = TOKENS.clone(), []
    for place, uniform in zip(DRAWN.tolist(), numbers.tolist(), strict=True):
        heights = q[place].double().cumsum(0)
        noised[place] = int((heights <= uniform).sum())
        equal.append(bool(noised[place] == TOKENS[place]))
    energies = both.energy.token_logits(noised, layout)
    noise_loss = energy_loss = torch.zeros(())
    for place in ORDINARY.tolist():
        noise_loss = noise_loss - q[place, TOKENS[place]].log()
        density = torch.exp(-energies[place])
        from_noise = RATE * q[place, noised[place]].detach()
        chance = from_noise / (from_noise + (1 - RATE) * density)
        energy_loss = energy_loss - torch.log(chance if place in DRAWN else 1 - chance)
    return noise_loss, energy_loss, equal


@pytest.mark.parametrize(("noise_seed", "bias"), [(0, 0.0), (1, 0.0), (2, 8.0)])
def test_a_step_by_hand(noise_seed: int, bias: float, both: Electric) -> None:
    with torch.no_grad():
        # At 8 q is nearly sure of the token at place 2, so that its sample is the original.
        both.noise.bias[TOKENS[2]] = bias
    found = both.step(TOKENS, DRAWN, ORDINARY, Layout.of(LENGTHS), rate=RATE, noise_seed=noise_seed)
    noise_loss, energy_loss, equal = by_hand(both, noise_seed)
    assert equal[0] or not bias, "noise that equals the text is still noise"
    torch.testing.assert_close(found.noise_loss_sum, noise_loss, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found.energy_loss_sum, energy_loss, atol=1e-4, rtol=1e-4)
    assert (found.tokens, found.drawn) == (10, 4)
    wanted = (noise_loss + 7 * energy_loss) / 10
    torch.testing.assert_close(found.loss(7.0), wanted, atol=1e-4, rtol=1e-4)
    parameters = list(both.parameters())
    ours, theirs = (
        torch.autograd.grad(value, parameters, allow_unused=True) for value in (found.loss(7.0), wanted)
    )
    for one, other in zip(ours, theirs, strict=True):
        if other is None:
            assert one is None or not one.any()
        else:
            assert (one - other).abs().max() <= 1e-3 * other.abs().max() + 1e-5


def test_steps_join(both: Electric) -> None:
    layout = Layout.of(LENGTHS)
    parts = [both.step(TOKENS, DRAWN, ORDINARY, layout, rate=RATE, noise_seed=seed) for seed in (0, 1)]
    whole = ElectricLosses.joined(parts)
    torch.testing.assert_close(whole.loss(2.0), (parts[0].loss(2.0) + parts[1].loss(2.0)) / 2)
    assert math.isfinite(whole.metrics()["energy_recall"])


def test_energies_tell_text_from_nonsense() -> None:
    """Texts that count, a b c d …: soon they score above the same words out of order."""
    draw = random.Random(0)
    words = ["ab", "cd", "ef", "gh", "ij", "kl", "mn", "op"]
    texts = [" ".join((words * 2)[start : start + 6]) for start in range(8)]
    tokenizer = ElectraTokenizer.train(texts, 115)
    config = replace(
        ENERGY,
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        embedding_size=16,
        max_position_embeddings=24,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    model = Electric(generator_config(config, 0.5), config)
    # Noise that knows the words and not their order; it stays so, or it would soon leave nothing to learn.
    with torch.no_grad():
        model.noise.bias[
            torch.tensor(sorted({i for row in tokenizer(texts)["input_ids"] for i in row[1:-1]}))
        ] = 6
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    special = np.array(sorted(tokenizer.special_ids))
    for step in range(300):
        rows = tokenizer(draw.choices(texts, k=16))["input_ids"]
        ids = np.array([token for row in rows for token in row])
        lengths = np.array([len(row) for row in rows])
        drawn = draw_positions(
            ids, lengths, special_ids=special, max_length=24, rate=0.2, rng=generator(0, "test", step)
        )
        ordinary = torch.from_numpy(np.flatnonzero(~np.isin(ids, special)))
        out = model.step(
            torch.from_numpy(ids),
            torch.from_numpy(drawn),
            ordinary,
            Layout.of(lengths.tolist()),
            rate=0.2,
            noise_seed=step,
        )
        loss = out.energy_loss_sum / out.tokens
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    shuffled = [" ".join(draw.sample(text.split(), 6)) for text in texts]
    model.eval()
    right, wrong = (score_texts(model.energy, tokenizer, each) for each in (texts, shuffled))
    assert sum(good > bad for good, bad in zip(right, wrong, strict=True)) == 8
    assert score_texts(model.energy, tokenizer, texts[:1]) == pytest.approx(right[:1], abs=1e-4)
