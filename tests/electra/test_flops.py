"""FLOPs by formula against PyTorch's count of what a step really runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from unmask.electra import flops
from unmask.electra.baselines import AllTokensMaskedLM, masked_lm_step
from unmask.electra.config import ElectraConfig, generator_config
from unmask.electra.diffusion import diffusion_step
from unmask.electra.electric import Electric
from unmask.electra.model import ElectraForMaskedLM
from unmask.electra.pair import ElectraPair
from unmask.nn import lines
from unmask.nn.ragged import Layout

CONFIG = ElectraConfig(
    vocab_size=50,
    embedding_size=12,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=40,
    max_position_embeddings=32,
    # With dropout attention is written out: the fused kernel for CPUs is one that PyTorch does not count.
    attention_probs_dropout_prob=0.1,
)
GENERATOR = generator_config(CONFIG, 0.5)
#: Of one length: attention pads sequences of unlike length that it takes together, which is not counted.
LENGTHS = [20] * 4
TOKENS = torch.arange(80) % 50
DRAWN = torch.arange(0, 80, 7)


@pytest.fixture(autouse=True)
def _weights_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model's operations are those of its formulas, whatever is computed again to save memory."""
    monkeypatch.setattr(lines, "available", lambda *kinds: False)


def counted(step: Callable[[], torch.Tensor]) -> int:
    with FlopCounterMode(display=False) as counter:
        step().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, embedding_size=16)])
def test_masked_lm(config: ElectraConfig) -> None:
    model = ElectraForMaskedLM(config)
    layout = Layout.of(LENGTHS)
    found = counted(lambda: masked_lm_step(model, TOKENS, TOKENS, DRAWN, layout).loss())
    assert found == flops.masked_lm_flops(config, LENGTHS, len(DRAWN))


@pytest.mark.parametrize("frozen", [False, True])
def test_replaced_tokens(frozen: bool) -> None:
    pair = ElectraPair.fresh(GENERATOR, CONFIG, "separate")
    if frozen:
        pair = ElectraPair(pair.generator, pair.discriminator, "separate", freeze_generator=True).train()
    layout = Layout.of(LENGTHS)

    def step() -> torch.Tensor:
        # The engine for inference, which serves a frozen generator, has products that PyTorch does not count.
        pair.generator.train()
        return pair.replaced_token_step(TOKENS, TOKENS, DRAWN, layout, noise_seed=0).loss()

    assert counted(step) == flops.replaced_token_flops(GENERATOR, CONFIG, LENGTHS, len(DRAWN), frozen=frozen)


def test_masked_diffusion_costs_what_replaced_tokens_do() -> None:
    pair = ElectraPair.fresh(GENERATOR, CONFIG, "separate").train()
    weights = torch.ones(len(DRAWN))
    found = counted(
        lambda: diffusion_step(
            pair.generator,
            pair.discriminator,
            TOKENS,
            TOKENS,
            DRAWN,
            Layout.of(LENGTHS),
            weights=weights,
            noise_seed=0,
        ).loss()
    )
    assert found == flops.replaced_token_flops(GENERATOR, CONFIG, LENGTHS, len(DRAWN))


def test_all_tokens() -> None:
    both = AllTokensMaskedLM.fresh(GENERATOR, CONFIG)
    layout = Layout.of(LENGTHS)
    found = counted(lambda: both.step(TOKENS, TOKENS, DRAWN, layout, noise_seed=0).loss())
    assert found == flops.all_tokens_flops(GENERATOR, CONFIG, LENGTHS, len(DRAWN))


def test_electric() -> None:
    both = Electric(GENERATOR, CONFIG)
    ordinary = torch.arange(1, 80)
    found = counted(
        lambda: both.step(TOKENS, DRAWN[1:], ordinary, Layout.of(LENGTHS), rate=0.15, noise_seed=0).loss(50.0)
    )
    assert found == flops.electric_flops(GENERATOR, CONFIG, LENGTHS, len(ordinary), len(DRAWN) - 1)


def test_sequences_of_unlike_length_count_without_padding() -> None:
    alone = [flops.encoder_flops(CONFIG, [length]) for length in (3, 20)]
    assert flops.encoder_flops(CONFIG, [3, 20]) == sum(alone)
