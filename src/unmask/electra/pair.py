"""The pre-training pair: generator and discriminator, and their joint step, replaced-token detection."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask import hub
from unmask.electra.config import ElectraConfig, generator_config
from unmask.electra.corruption import fill_masks
from unmask.electra.model import ElectraForMaskedLM, ElectraForPreTraining
from unmask.electra.sharing import Sharing, fresh_halves, share_embeddings, standing_alone
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.nn.losses import at_least_float32
from unmask.nn.ragged import Layout
from unmask.nn.sums import Sums

logger = logging.getLogger("unmask")

#: Where the halves lie in a pair directory.
GENERATOR, DISCRIMINATOR = "generator", "discriminator"

#: Weight of the discriminator's loss beside the generator's (ELECTRA paper, table 6: λ).
DISCRIMINATOR_WEIGHT = 50.0


@dataclass(frozen=True)
class ReplacedTokenLosses(Sums):
    """What one step of replaced-token detection measured: sums and counts, so that several can be joined.

    Attributes:
        generator_loss_sum: cross-entropies of the drawn places, float32, in nats, with gradient.
        discriminator_loss_sum: binary cross-entropies of all tokens, float32, in nats, with gradient.
        drawn, tokens: how many places and tokens.
        generator_hits: drawn places where the generator's likeliest token is the original.
        discriminator_hits: tokens that the discriminator judges rightly.
        replaced: tokens whose sample differs from the original.
        found: replaced tokens that the discriminator finds.
    """

    generator_loss_sum: Tensor
    discriminator_loss_sum: Tensor
    drawn: int
    tokens: int
    generator_hits: Tensor
    discriminator_hits: Tensor
    replaced: Tensor
    found: Tensor

    def loss(self, discriminator_weight: float = DISCRIMINATOR_WEIGHT) -> Tensor:
        """1 · masked LM (mean over drawn places) + 50 · detection (mean over tokens)."""
        generator_loss = self.generator_loss_sum / self.drawn
        return generator_loss + self.discriminator_loss_sum * (discriminator_weight / self.tokens)

    def metrics(self) -> dict[str, Tensor]:
        """Means for a log, as scalars on the device.

        `discriminator_recall` is the share of replaced tokens that are found, 0/0 = nan where nothing was
        replaced; `replaced_rate` the share of all tokens that are replaced, `replaced_of_drawn` that of the
        drawn ones, which is what the generator gets wrong when it samples.
        """
        return {
            "generator_loss": self.generator_loss_sum.detach() / self.drawn,
            "generator_accuracy": self.generator_hits / self.drawn,
            "discriminator_loss": self.discriminator_loss_sum.detach() / self.tokens,
            "discriminator_accuracy": self.discriminator_hits / self.tokens,
            "discriminator_recall": self.found / self.replaced,
            "replaced_rate": self.replaced / self.tokens,
            "replaced_of_drawn": self.replaced / self.drawn,
        }


class ElectraPair(nn.Module):
    """Both halves, with one set of token, position and segment embeddings and one embedding norm.

    Each half has its own projection from the embeddings' width. `parameters()` names shared ones once.

    Args:
        generator, discriminator: with the same vocabulary and, unless `sharing` is "separate", the same
            embedding width, positions and segments; where they are shared, the generator's embeddings are
            given up for the discriminator's.
        sharing: see `unmask.electra.sharing`.
        freeze_generator: the generator is not trained and has no dropout, as in Fast-ELECTRA
            (arXiv 2310.07347); it cannot share embeddings then that the discriminator trains.

    Raises:
        UserError: sizes that cannot be shared, a frozen generator with shared embeddings.
    """

    def __init__(
        self,
        generator: ElectraForMaskedLM,
        discriminator: ElectraForPreTraining,
        sharing: Sharing = "shared",
        *,
        freeze_generator: bool = False,
    ) -> None:
        super().__init__()
        if freeze_generator and sharing == "shared":
            raise UserError(
                "a frozen generator cannot share its embeddings, which the discriminator trains: "
                "let them be 'separate' or 'disentangled'"
            )
        self.generator = generator
        self.discriminator = discriminator
        self.generator_is_frozen = freeze_generator
        share_embeddings(generator.encoder, discriminator.encoder, sharing)
        if freeze_generator:
            generator.requires_grad_(False).eval()

    @classmethod
    def fresh(
        cls, generator: ElectraConfig, discriminator: ElectraConfig, sharing: Sharing = "shared"
    ) -> Self:
        """A new pair, drawn from torch's global generator; disentangled halves start from the same tables.

        Raises:
            UserError: sizes that cannot be shared.
        """
        return cls(*fresh_halves(generator, ElectraForPreTraining, discriminator, sharing), sharing)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str], *, sharing: Sharing = "shared", **options: Any
    ) -> Self:
        """Load a pair directory; options as for a model's `from_pretrained`.

        Halves whose embeddings differ (two models of unlike origin, or trained so) are loaded with a warning
        where they are to be shared: the generator's are given up.

        Raises:
            UserError: a half is missing or damaged, or their sizes cannot be shared.
        """
        options.setdefault("dtype", "float32")  # a pair is there to be trained, int8 is not
        directory = hub.find_model(name_or_path, revision=options.pop("revision", None))
        for half in (GENERATOR, DISCRIMINATOR):
            if not (directory / half).is_dir():
                raise UserError(f"{directory} is no pair: it has no directory {half}")
        generator = ElectraForMaskedLM.from_pretrained(directory / GENERATOR, **options)
        discriminator = ElectraForPreTraining.from_pretrained(directory / DISCRIMINATOR, **options)
        before = generator.encoder.embeddings.state_dict()
        pair = cls(generator, discriminator, sharing)
        if sharing == "shared":
            after = discriminator.encoder.embeddings.state_dict()
            if not all(torch.equal(before[name], after[name]) for name in after):
                logger.warning(
                    "%s: the halves' embeddings differ; the discriminator's serve both now", directory
                )
        return pair

    @classmethod
    def from_discriminator(
        cls,
        discriminator: str | os.PathLike[str],
        generator: str | os.PathLike[str] | None = None,
        *,
        generator_width: float = 0.25,
        **options: Any,
    ) -> Self:
        """A pair to continue with from a discriminator, or any encoder of ELECTRA's or BERT's layout, alone.

        The discriminator's embeddings serve both halves. A head that the checkpoint lacks is drawn afresh.

        Args:
            discriminator: a model directory or Hub name.
            generator: a masked language model with the same vocabulary and embedding sizes (ELECTRA's or BERT's
                layout); None: a fresh one, from torch's global generator.
            generator_width: of a fresh one, as a share of the discriminator's.
            options: as for a model's `from_pretrained`.

        Raises:
            UserError: sizes that cannot be shared, or tokenizers beside the two that give other ids.
        """
        options.setdefault("dtype", "float32")
        judge = ElectraForPreTraining.from_pretrained(discriminator, **options)
        if generator is None:
            fresh = ElectraForMaskedLM(generator_config(judge.config, generator_width))
            return cls(fresh.to(judge.encoder.embeddings.token.weight).eval(), judge)
        _check_vocabularies(generator, discriminator)
        return cls(ElectraForMaskedLM.from_pretrained(generator, **options), judge)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write `generator/` and `discriminator/`, each a model directory that stands alone."""
        self.generator.save_pretrained(Path(directory) / GENERATOR)
        standing_alone(self.discriminator).save_pretrained(Path(directory) / DISCRIMINATOR)

    def train(self, mode: bool = True) -> Self:
        """As any module's; a frozen generator has no dropout in training either."""
        super().train(mode)
        if self.generator_is_frozen:
            self.generator.eval()
        return self

    def replaced_token_step(
        self,
        tokens: Tensor,
        masked: Tensor,
        drawn: Tensor,
        layout: Layout,
        types: Tensor | None = None,
        *,
        noise_seed: int,
        temperature: float = 1.0,
    ) -> ReplacedTokenLosses:
        """Replaced-token detection (ELECTRA paper, section 2): fill the masks, then find the fillings.

        A token counts as replaced where it was drawn and its sample differs from the original. The generator
        learns from its own loss alone: no gradient passes through the sampling.

        Args:
            tokens: (total,) int64 packed original ids.
            masked: (total,) int64, the generator's input.
            drawn: (n,) int64 places in the stream, none twice, at least one.
            layout: the sequences' lengths.
            types: (total,) int64 segments; None: all of the first.
            noise_seed: decides the samples, together with `Layout.places` and the generator's distributions.
            temperature: of the sampling, above 0.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.generator_is_frozen):
            filled = fill_masks(
                self.generator,
                tokens,
                masked,
                drawn,
                layout,
                types,
                noise_seed=noise_seed,
                temperature=temperature,
            )
        logits = at_least_float32(self.discriminator.token_logits(filled.ids, layout, types))
        replaced = filled.replaced
        discriminator_loss = F.binary_cross_entropy_with_logits(logits, replaced.to(logits), reduction="sum")
        suspected = logits.detach() > 0
        return ReplacedTokenLosses(
            generator_loss_sum=filled.loss_sum,
            discriminator_loss_sum=discriminator_loss,
            drawn=drawn.numel(),
            tokens=tokens.numel(),
            generator_hits=filled.hits,
            discriminator_hits=(suspected == replaced).sum(),
            replaced=replaced.sum(),
            found=(suspected & replaced).sum(),
        )


def _check_vocabularies(*models: str | os.PathLike[str]) -> None:
    """Refuse models whose tokenizers, where both have one, number other pieces."""
    pieces = []
    for model in models:
        try:
            tokenizer = ElectraTokenizer.from_pretrained(model)
        except UserError:  # weights alone: their sizes are all there is to compare
            return
        pieces.append(tokenizer.convert_ids_to_tokens(range(tokenizer.vocab_size)))
    if pieces[0] != pieces[1]:
        raise UserError(f"{models[0]} and {models[1]} have different vocabularies: a pair needs one")
