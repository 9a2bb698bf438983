"""What every objective with a generator begins with: the generator fills the masks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unmask.electra.model import ElectraForMaskedLM
from unmask.nn.ragged import Layout
from unmask.nn.sampling import uniforms


@dataclass(frozen=True)
class Filled:
    """A batch whose drawn places hold the generator's samples.

    Attributes:
        loss_sum: the generator's cross-entropies at the drawn places, a float32 scalar, in nats; with gradient
            where the generator has one.
        ids: (total,) int64, the text with the samples in it.
        replaced: (total,) bool, where a sample differs from the original.
        hits: drawn places where the generator's likeliest token is the original.
    """

    loss_sum: Tensor
    ids: Tensor
    replaced: Tensor
    hits: Tensor


def fill_masks(
    generator: ElectraForMaskedLM,
    tokens: Tensor,
    masked: Tensor,
    drawn: Tensor,
    layout: Layout,
    types: Tensor | None,
    *,
    noise_seed: int,
    temperature: float = 1.0,
    weights: Tensor | None = None,
) -> Filled:
    """Sample a token for each drawn place (ELECTRA paper, section 2). No gradient passes through the sampling.

    Args:
        tokens: (total,) int64 packed original ids.
        masked: (total,) int64, what the generator is shown.
        drawn: (n,) int64 places in the stream, none twice, at least one.
        layout: the sequences' lengths.
        types: (total,) int64 segments; None: all of the first.
        noise_seed: decides the samples, together with the tokens' numbers in the whole batch (`Layout.places`) and
            the generator's distributions.
        temperature: of the sampling, above 0. The loss is that of temperature 1.
        weights: (n,) what each drawn place counts in the loss; None: 1.
    """
    targets = tokens.index_select(0, drawn)
    hidden = generator.hidden(masked, layout, types, at=drawn)
    loss_sum = generator.masked_lm_loss_sum(hidden, targets, weights)
    numbers = uniforms(noise_seed, layout.places.index_select(0, drawn))
    sampled, likeliest = generator.sample(hidden.detach(), numbers, temperature)
    ids = tokens.index_copy(0, drawn, sampled)
    return Filled(loss_sum, ids, ids != tokens, (likeliest == targets).sum())
