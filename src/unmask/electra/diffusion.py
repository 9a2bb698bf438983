"""Teaching a pair to write: the generator by masked diffusion, the discriminator on what the generator wrote.

At every noise level, from one masked place to all, the generator learns to fill the masked places (MDLM, arXiv
2406.07524) and the discriminator to tell its samples from the originals: what Token-Critic (arXiv 2209.04439) trains
a second model for is here the discriminator's own objective.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.electra.corruption import fill_masks
from unmask.electra.model import ElectraForMaskedLM, ElectraForPreTraining
from unmask.nn.losses import at_least_float32
from unmask.nn.ragged import Layout
from unmask.nn.sums import Sums

#: Weight of the discriminator's loss beside the generator's. With 15 % masked λ = 50 brings the two to one size;
#: here a third of all tokens is replaced, and the discriminator's loss is ten times as large.
DIFFUSION_DISCRIMINATOR_WEIGHT = 5.0


@dataclass(frozen=True)
class DiffusionLosses(Sums):
    """What one step measured: sums and counts, so that several can be joined.

    Attributes:
        generator_loss_sum: cross-entropies of the masked places, each weighted by one over its row's noise level;
            float32, in nats, with gradient. Its expectation bounds the negative log-likelihood from above.
        discriminator_loss_sum: binary cross-entropies of the judged tokens, float32, in nats, with gradient; 0
            without a discriminator.
        noisable: tokens that could have been masked.
        judged: tokens that the discriminator was asked about; 0 without one.
        drawn: masked places.
        generator_hits: of those, where the generator's likeliest token is the original.
        replaced: tokens whose sample differs from the original.
        discriminator_hits: tokens that the discriminator judges rightly.
        found: replaced tokens that the discriminator finds.
    """

    generator_loss_sum: Tensor
    discriminator_loss_sum: Tensor
    noisable: int
    judged: int
    drawn: int
    generator_hits: Tensor
    replaced: Tensor
    discriminator_hits: Tensor
    found: Tensor

    def loss(self, discriminator_weight: float = DIFFUSION_DISCRIMINATOR_WEIGHT) -> Tensor:
        """1 · bound (nats a token that could be masked) + weight · detection (mean over judged tokens)."""
        bound = self.generator_loss_sum / self.noisable
        if not self.judged:
            return bound
        return bound + self.discriminator_loss_sum * (discriminator_weight / self.judged)

    def metrics(self) -> dict[str, Tensor]:
        """Means for a log, as scalars on the device; the discriminator's only where there is one.

        `generator_loss` is the bound on the negative log-likelihood in nats a token; the other names mean what
        they do for replaced-token detection.
        """
        of_generator = {
            "generator_loss": self.generator_loss_sum.detach() / self.noisable,
            "generator_accuracy": self.generator_hits / self.drawn,
            "replaced_of_drawn": self.replaced / self.drawn,
        }
        if not self.judged:
            return of_generator
        return of_generator | {
            "discriminator_loss": self.discriminator_loss_sum.detach() / self.judged,
            "discriminator_accuracy": self.discriminator_hits / self.judged,
            "discriminator_recall": self.found / self.replaced,
            "replaced_rate": self.replaced / self.judged,
        }


def diffusion_step(
    generator: ElectraForMaskedLM,
    discriminator: ElectraForPreTraining | None,
    tokens: Tensor,
    masked: Tensor,
    drawn: Tensor,
    layout: Layout,
    types: Tensor | None = None,
    *,
    weights: Tensor,
    noise_seed: int,
    answers: Tensor | None = None,
    noisable: int | None = None,
    temperature: float = 1.0,
) -> DiffusionLosses:
    """Fill the masked places, then find which of the fillings are wrong. Nothing flows through the sampling.

    Args:
        discriminator: None: the generator learns alone.
        tokens: (total,) int64 packed original ids.
        masked: (total,) int64, the generator's input: [MASK] at the drawn places.
        drawn: (n,) int64 places in the stream, none twice, at least one.
        layout: the sequences' lengths.
        types: (total,) int64 segments; None: all of the first.
        weights: (n,) one over the noise level of each drawn place's row.
        noise_seed: decides the samples, together with `Layout.places` and the generator's distributions.
        answers: (m,) int64 places that the discriminator is asked about, the ones that can be masked; None: all.
        noisable: how many tokens could have been masked; None: as many as there are answers, or tokens.
        temperature: of the sampling, above 0.
    """
    trained = any(parameter.requires_grad for parameter in generator.parameters())
    with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
        filled = fill_masks(
            generator,
            tokens,
            masked,
            drawn,
            layout,
            types,
            noise_seed=noise_seed,
            temperature=temperature,
            weights=weights,
        )
    if noisable is None:
        noisable = tokens.numel() if answers is None else answers.numel()
    none = filled.hits.new_zeros(())
    judgement, hits, found, judged = filled.loss_sum.new_zeros(()), none, none, 0
    if discriminator is not None:
        encoded = discriminator.encoder(filled.ids, layout, types)
        is_replaced = filled.replaced
        if answers is not None:
            encoded, is_replaced = encoded.index_select(0, answers), is_replaced.index_select(0, answers)
        logits = at_least_float32(discriminator.discriminator_head(encoded))
        judgement = F.binary_cross_entropy_with_logits(logits, is_replaced.to(logits), reduction="sum")
        suspected = logits.detach() > 0
        hits, found = (suspected == is_replaced).sum(), (suspected & is_replaced).sum()
        judged = logits.numel()
    return DiffusionLosses(
        generator_loss_sum=filled.loss_sum,
        discriminator_loss_sum=judgement,
        noisable=noisable,
        judged=judged,
        drawn=drawn.numel(),
        generator_hits=filled.hits,
        replaced=filled.replaced.sum(),
        discriminator_hits=hits,
        found=found,
    )
