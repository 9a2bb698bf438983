"""One batch of replaced-token detection, worked out in NumPy from the paper's formulas.

Nothing here but the first weights, the random numbers and the seeds comes from the code under test: masks, the
generator's and the discriminator's forward pass, the samples, labels and losses are written out once more, in
float64, and the gradients of the shared embeddings are central differences of those losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from hashlib import blake2b

import numpy as np
import pytest
import torch

from unmask.electra.config import ElectraConfig, generator_config
from unmask.electra.pair import ElectraPair
from unmask.nn.ragged import Layout
from unmask.nn.sampling import uniforms
from unmask.objectives.randomness import generator
from unmask.objectives.replaced_tokens import draw_positions, mask

PAD, CLS, SEP, MASK = 0, 1, 2, 3
ROWS = (
    [CLS, 5, 6, 7, 8, 9, 10, 11, 5, 6, 7, 8, SEP],
    [CLS, 9, 9, 10, SEP, 11, 4, 4, 8, SEP],
    [CLS, 10, 7, 5, SEP],
)
TOKENS = np.array([token for row in ROWS for token in row])
TYPES = np.array([0] * 13 + [0] * 5 + [1] * 5 + [0] * 5)
LENGTHS = np.array([len(row) for row in ROWS])
RATE, LONGEST, SEED, BATCH = 0.25, 16, 11, 4

DISCRIMINATOR = ElectraConfig(
    vocab_size=12,
    embedding_size=6,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=10,
    max_position_embeddings=LONGEST,
    initializer_range=0.6,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)

Weights = dict[str, np.ndarray]
Losses = tuple[float, float]


# --- masks -----------------------------------------------------------------------------------------------


def masks_by_hand() -> tuple[list[int], list[int]]:
    """Drawn places, and what the generator is shown."""
    key = blake2b(f"{SEED}\0corruption\0{BATCH}".encode(), digest_size=16).digest()
    rng = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    ordinary = [place for place, token in enumerate(TOKENS) if token not in (PAD, CLS, SEP, MASK)]
    numbers = [int(number) for number in rng.integers(0, 2**64, size=len(ordinary), dtype=np.uint64)]
    # A number carries the row in its two highest bits and the place in its five lowest: 3 rows, 28 tokens.
    lottery = {place: (number % 2**62) // 2**5 for place, number in zip(ordinary, numbers, strict=True)}
    drawn = []
    for row, length in enumerate(LENGTHS):
        first = sum(LENGTHS[:row])
        mine = [place for place in ordinary if first <= place < first + length]
        count = max(1, min(int((RATE + 0.005) * LONGEST), round(RATE * length)))
        drawn += sorted(mine, key=lambda place: lottery[place])[:count]
    drawn.sort()
    shown = TOKENS.tolist()
    for place, number in zip(drawn, rng.random(len(drawn)), strict=True):
        if number < 0.85:
            shown[place] = MASK
    return drawn, shown


def masks_of_the_code() -> tuple[np.ndarray, np.ndarray]:
    rng = generator(SEED, "corruption", BATCH)
    special = np.array([PAD, CLS, SEP, MASK])
    drawn = draw_positions(TOKENS, LENGTHS, special_ids=special, max_length=LONGEST, rate=RATE, rng=rng)
    return drawn, mask(TOKENS, drawn, mask_id=MASK, rng=rng)


def test_masks() -> None:
    drawn, shown = masks_of_the_code()
    wanted_drawn, wanted_shown = masks_by_hand()
    assert drawn.tolist() == wanted_drawn
    assert shown.tolist() == wanted_shown
    # min(int(0.255 · 16), round(0.25 · 13)) = 3, round(2.5) = 2 (to even), round(1.25) = 1.
    assert [sum(1 for place in drawn if a <= place < b) for a, b in ((0, 13), (13, 23), (23, 28))] == [
        3,
        2,
        1,
    ]
    kept = [place for place in wanted_drawn if wanted_shown[place] != MASK]
    assert kept, "of this batch's drawn places one is shown as it is"


# --- the model -------------------------------------------------------------------------------------------


def norm(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def softmax(x: np.ndarray) -> np.ndarray:
    high = np.exp(x - x.max(-1, keepdims=True))
    return high / high.sum(-1, keepdims=True)


def encode(ids: np.ndarray, types: np.ndarray, weights: Weights, half: str, heads: int) -> np.ndarray:
    """One sequence: (length,) → (length, hidden_size)."""
    tables, encoder = "discriminator.encoder.embeddings", f"{half}.encoder"
    x = weights[f"{tables}.token.weight"][ids] + weights[f"{tables}.position.weight"][: len(ids)]
    x = norm(x + weights[f"{tables}.token_type.weight"][types], weights, f"{tables}.norm")
    x = linear(x, weights, f"{encoder}.projection")
    for number in range(DISCRIMINATOR.num_hidden_layers):
        layer = f"{encoder}.layers.{number}"
        width = x.shape[1] // heads
        query, key, value = (
            linear(x, weights, f"{layer}.{part}").reshape(len(ids), heads, width).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        seen = softmax(query @ key.swapaxes(1, 2) / math.sqrt(width)) @ value
        seen = seen.swapaxes(0, 1).reshape(len(ids), -1)
        x = norm(x + linear(seen, weights, f"{layer}.attention_output"), weights, f"{layer}.attention_norm")
        inner = linear(gelu(linear(x, weights, f"{layer}.up")), weights, f"{layer}.down")
        x = norm(x + inner, weights, f"{layer}.feed_forward_norm")
    return x


def encode_rows(ids: np.ndarray, weights: Weights, half: str, heads: int) -> np.ndarray:
    """Each sequence alone: (total,) → (total, hidden_size)."""
    cuts = np.cumsum(LENGTHS)[:-1]
    rows = zip(np.split(ids, cuts), np.split(TYPES, cuts), strict=True)
    return np.concatenate([encode(row, types, weights, half, heads) for row, types in rows])


def generator_logits(shown: np.ndarray, drawn: list[int], weights: Weights) -> np.ndarray:
    """(drawn, vocab_size): the output matrix is the token embedding."""
    x = encode_rows(shown, weights, "generator", heads=1)[drawn]
    head = "generator.generator_head"
    x = norm(gelu(linear(x, weights, f"{head}.dense")), weights, f"{head}.norm")
    table = weights["discriminator.encoder.embeddings.token.weight"]
    return x @ table.T + weights[f"{head}.output.bias"]


def discriminator_logits(ids: np.ndarray, weights: Weights) -> np.ndarray:
    """(total,)."""
    x = encode_rows(ids, weights, "discriminator", heads=2)
    head = "discriminator.discriminator_head"
    return linear(gelu(linear(x, weights, f"{head}.dense")), weights, f"{head}.output")[:, 0]


# --- the step --------------------------------------------------------------------------------------------


def samples(logits: np.ndarray, drawn: list[int], noise_seed: int) -> list[int]:
    """The token under which each uniform number falls when the probabilities are laid end to end."""
    numbers = uniforms(noise_seed, Layout.of(LENGTHS.tolist()).places[drawn]).numpy()
    heights = np.cumsum(softmax(logits), axis=-1)
    return [int((row <= number).sum()) for row, number in zip(heights, numbers, strict=True)]


def corrupted_and_labels(drawn: list[int], sampled: list[int]) -> tuple[np.ndarray, np.ndarray]:
    ids, labels = TOKENS.copy(), np.zeros(len(TOKENS))
    for place, token in zip(drawn, sampled, strict=True):
        labels[place] = token != ids[place]
        ids[place] = token
    return ids, labels


def losses(
    weights: Weights, shown: np.ndarray, drawn: list[int], ids: np.ndarray, labels: np.ndarray
) -> Losses:
    """Sums: cross-entropies of the drawn places, binary cross-entropies of all tokens."""
    chances = softmax(generator_logits(shown, drawn, weights))
    generator_loss = -sum(
        math.log(row[token]) for row, token in zip(chances, TOKENS[drawn].tolist(), strict=True)
    )
    replaced = 1 / (1 + np.exp(-discriminator_logits(ids, weights)))
    discriminator_loss = -(labels * np.log(replaced) + (1 - labels) * np.log(1 - replaced)).sum()
    return generator_loss, float(discriminator_loss)


def central_difference(of: Callable[[], float], array: np.ndarray, step: float = 1e-6) -> np.ndarray:
    gradient = np.zeros_like(array)
    for place in np.ndindex(array.shape):
        kept = array[place]
        array[place] = kept + step
        above = of()
        array[place] = kept - step
        gradient[place] = (above - of()) / (2 * step)
        array[place] = kept
    return gradient


def pair_with_every_weight_at_work() -> ElectraPair:
    """Norms and biases are not left at 1 and 0, where a mistake would not show."""
    torch.manual_seed(0)
    pair = ElectraPair.fresh(generator_config(DISCRIMINATOR, 0.5), DISCRIMINATOR).double()
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return pair


@pytest.mark.parametrize("noise_seed", [6, 13])
def test_a_step(noise_seed: int) -> None:
    pair = pair_with_every_weight_at_work()
    weights = {name: tensor.numpy().copy() for name, tensor in pair.state_dict().items()}
    drawn, shown = masks_by_hand()
    logits = generator_logits(np.array(shown), drawn, weights)
    sampled = samples(logits, drawn, noise_seed)
    equal = [token == TOKENS[place] for place, token in zip(drawn, sampled, strict=True)]
    assert any(equal), "a sample that is the original is part of this batch"
    assert not all(equal)
    ids, labels = corrupted_and_labels(drawn, sampled)
    assert labels.sum() == equal.count(False)

    found = pair.replaced_token_step(
        torch.from_numpy(TOKENS),
        torch.tensor(shown),
        torch.tensor(drawn),
        Layout.of(LENGTHS.tolist()),
        torch.from_numpy(TYPES),
        noise_seed=noise_seed,
    )
    generator_loss, discriminator_loss = losses(weights, np.array(shown), drawn, ids, labels)
    assert found.generator_loss_sum.item() == pytest.approx(generator_loss, rel=1e-6)
    assert found.discriminator_loss_sum.item() == pytest.approx(discriminator_loss, rel=1e-5)
    total = generator_loss / len(drawn) + 50 * discriminator_loss / len(TOKENS)
    assert found.loss().item() == pytest.approx(total, rel=1e-5)

    suspected = discriminator_logits(ids, weights) > 0
    assert found.replaced == labels.sum()
    assert found.found == (suspected & (labels == 1)).sum()
    assert found.discriminator_hits == (suspected == (labels == 1)).sum()
    assert found.generator_hits == (logits.argmax(-1) == TOKENS[drawn]).sum()

    found.loss().backward()
    tables = "discriminator.encoder.embeddings"

    def joint_loss() -> float:
        one, other = losses(weights, np.array(shown), drawn, ids, labels)
        return one / len(drawn) + 50 * other / len(TOKENS)

    for name in ("token.weight", "position.weight", "token_type.weight", "norm.weight", "norm.bias"):
        gradient = pair.get_parameter(f"{tables}.{name}").grad
        assert gradient is not None
        wanted = central_difference(joint_loss, weights[f"{tables}.{name}"])
        assert np.abs(wanted).max() > 0.01, name
        np.testing.assert_allclose(gradient.numpy(), wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_the_labels_decide_the_loss() -> None:
    """The rule for samples that are the original, on its own: calling them replaced gives another loss."""
    pair = pair_with_every_weight_at_work()
    weights = {name: tensor.numpy() for name, tensor in pair.state_dict().items()}
    drawn, shown = masks_by_hand()
    sampled = samples(generator_logits(np.array(shown), drawn, weights), drawn, 6)
    ids, labels = corrupted_and_labels(drawn, sampled)
    every_drawn = np.isin(np.arange(len(TOKENS)), drawn).astype(float)
    right = losses(weights, np.array(shown), drawn, ids, labels)[1]
    wrong = losses(weights, np.array(shown), drawn, ids, every_drawn)[1]
    assert abs(right - wrong) > 0.1
