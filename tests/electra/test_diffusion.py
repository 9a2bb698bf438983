"""The loss of a pair that learns to write, against the same written out row by row."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from unmask.electra.config import ElectraConfig, generator_config
from unmask.electra.diffusion import DIFFUSION_DISCRIMINATOR_WEIGHT, DiffusionLosses, diffusion_step
from unmask.electra.pair import ElectraPair
from unmask.nn.ragged import Layout
from unmask.nn.sampling import uniforms

CONFIG = ElectraConfig(
    vocab_size=14,
    embedding_size=6,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=10,
    max_position_embeddings=16,
    initializer_range=0.6,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
MASK = 3
ROWS = [[1, 5, 6, 7, 2], [1, 8, 9, 10, 11, 2]]
MASKED = [[1, MASK, 6, MASK, 2], [1, 8, 9, MASK, 11, 2]]
#: Of 3 and 4 places that could be masked, 2 and 1 are.
WEIGHTS = torch.tensor([1.5, 1.5, 4.0])
DRAWN = torch.tensor([1, 3, 8])
TYPES = torch.tensor([0] * 5 + [0, 0, 1, 1, 1, 1])


@pytest.fixture
def pair() -> ElectraPair:
    torch.manual_seed(0)
    return ElectraPair.fresh(generator_config(CONFIG, 1.0), CONFIG).train()


def flat(rows: list[list[int]]) -> torch.Tensor:
    return torch.tensor([token for row in rows for token in row])


def step(pair: ElectraPair, **options: object) -> DiffusionLosses:
    layout = Layout.of([len(row) for row in ROWS])
    arguments = (flat(ROWS), flat(MASKED), DRAWN, layout, TYPES)
    return diffusion_step(
        pair.generator,
        pair.discriminator,
        *arguments,
        weights=WEIGHTS,
        noise_seed=7,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("answers", [None, [8, 9, 10]])
def test_by_hand(answers: list[int] | None, pair: ElectraPair) -> None:
    asked = None if answers is None else torch.tensor(answers)
    found = step(pair, answers=asked, noisable=7)

    types = [row[None] for row in TYPES.split([5, 6])]
    logits = torch.cat(
        [
            pair.generator(torch.tensor([row]), token_type_ids=kinds).logits[0]
            for row, kinds in zip(MASKED, types, strict=True)
        ]
    )
    chances = logits.log_softmax(-1)
    bound = -(1.5 * chances[1, 5] + 1.5 * chances[3, 7] + 4 * chances[8, 10])
    torch.testing.assert_close(found.generator_loss_sum, bound)

    numbers = uniforms(7, Layout.of([len(row) for row in ROWS]).places[DRAWN])
    heights = logits[DRAWN].double().softmax(-1).cumsum(-1)
    sampled = (heights <= numbers[:, None]).sum(-1)
    seen = flat(ROWS).index_copy(0, DRAWN, sampled)
    replaced = seen != flat(ROWS)
    assert replaced.any()
    suspicion = torch.cat(
        [
            pair.discriminator(row[None], token_type_ids=kinds).logits[0]
            for row, kinds in zip(seen.split([5, 6]), types, strict=True)
        ]
    )
    places = torch.arange(11) if answers is None else torch.tensor(answers)
    judgement = F.binary_cross_entropy_with_logits(
        suspicion[places], replaced[places].float(), reduction="sum"
    )
    torch.testing.assert_close(found.discriminator_loss_sum, judgement)
    total = bound / 7 + DIFFUSION_DISCRIMINATOR_WEIGHT * judgement / len(places)
    torch.testing.assert_close(found.loss(), total)
    assert (found.drawn, found.judged, int(found.replaced)) == (3, len(places), int(replaced.sum()))
    assert found.discriminator_hits == ((suspicion > 0) == replaced)[places].sum()

    weights = [*pair.parameters()]
    by_step = torch.autograd.grad(found.loss(), weights, allow_unused=True)
    by_hand = torch.autograd.grad(total, weights, allow_unused=True)
    for one, other in zip(by_step, by_hand, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_generator_alone(pair: ElectraPair) -> None:
    both = step(pair)
    layout = Layout.of([len(row) for row in ROWS])
    alone = diffusion_step(
        pair.generator, None, flat(ROWS), flat(MASKED), DRAWN, layout, TYPES, weights=WEIGHTS, noise_seed=7
    )
    torch.testing.assert_close(alone.loss(), both.generator_loss_sum / 11)
    assert set(alone.metrics()) == {"generator_loss", "generator_accuracy", "replaced_of_drawn"}


def test_steps_join(pair: ElectraPair) -> None:
    one = step(pair)
    two = DiffusionLosses.joined([one, one])
    torch.testing.assert_close(two.loss(), one.loss())
    assert two.judged == 22
