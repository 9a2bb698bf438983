"""The objectives that ELECTRA is measured against (ELECTRA paper, section 3.4): masked LM, all-tokens masked LM."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.electra.config import ElectraConfig
from unmask.electra.corruption import fill_masks
from unmask.electra.model import DiscriminatorHead, ElectraForMaskedLM
from unmask.electra.sharing import Sharing, fresh_halves, share_embeddings
from unmask.nn.losses import at_least_float32, linear_log_probabilities
from unmask.nn.ragged import Layout
from unmask.nn.sums import Sums


@dataclass(frozen=True)
class MaskedLMLosses(Sums):
    """What one step of masked language modelling measured.

    Attributes:
        loss_sum: cross-entropies of the drawn places, float32, in nats, with gradient.
        drawn: how many places.
        hits: drawn places where the likeliest token is the original; None in training, where nothing else
            needs the logits a second time.
    """

    loss_sum: Tensor
    drawn: int
    hits: Tensor | None

    def loss(self) -> Tensor:
        """Mean over drawn places."""
        return self.loss_sum / self.drawn

    def metrics(self) -> dict[str, Tensor]:
        accuracy = {} if self.hits is None else {"accuracy": self.hits / self.drawn}
        return {"loss": self.loss().detach(), **accuracy}


def masked_lm_step(
    model: ElectraForMaskedLM,
    tokens: Tensor,
    masked: Tensor,
    drawn: Tensor,
    layout: Layout,
    types: Tensor | None = None,
) -> MaskedLMLosses:
    """Predict the drawn tokens, with ELECTRA's masking: of the drawn, 85 % are shown as [MASK], 15 % as they are.

    Args:
        tokens, masked: (total,) int64 packed ids, original and as the model is shown them.
        drawn: (n,) int64 places in the stream, at least one.
        types: (total,) int64 segments; None: all of the first.
    """
    targets = tokens.index_select(0, drawn)
    hidden = model.hidden(masked, layout, types, at=drawn)
    hits = None
    if not torch.is_grad_enabled():
        hits = (model.likeliest(hidden) == targets).sum()
    return MaskedLMLosses(model.masked_lm_loss_sum(hidden, targets), drawn.numel(), hits)


@dataclass(frozen=True)
class AllTokensLosses(Sums):
    """What one step of all-tokens masked LM measured: sums and counts.

    Attributes:
        generator_loss_sum: of the drawn places, loss_sum: of all tokens; float32, in nats, with gradient.
        generator_hits: drawn places where the generator's likeliest token is the original.
        replaced: tokens whose sample differs from the original.
        doubted: of those, the ones that the model would rather not copy.
    """

    generator_loss_sum: Tensor
    loss_sum: Tensor
    drawn: int
    tokens: int
    generator_hits: Tensor
    replaced: Tensor
    doubted: Tensor

    def loss(self, weight: float = 1.0) -> Tensor:
        """1 · generator (mean over drawn places) + weight · the model (mean over all tokens)."""
        return self.generator_loss_sum / self.drawn + self.loss_sum * (weight / self.tokens)

    def metrics(self) -> dict[str, Tensor]:
        return {
            "generator_loss": self.generator_loss_sum.detach() / self.drawn,
            "generator_accuracy": self.generator_hits / self.drawn,
            "all_tokens_loss": self.loss_sum.detach() / self.tokens,
            "copy_recall": self.doubted / self.replaced,
            "replaced_rate": self.replaced / self.tokens,
            "replaced_of_drawn": self.replaced / self.drawn,
        }


class AllTokensMaskedLM(nn.Module):
    """A generator fills the masks; the model says of every token which it was, copying where it trusts the input.

    With D = sigmoid(copy score), the model's distribution is D on the token that it sees and 1 - D times its
    softmax: p(x) = D·[x = seen] + (1 - D)·softmax(x). The copy head serves this training alone; the model that
    comes of it is a masked LM.

    Args:
        generator: the narrow one.
        model: the one that is wanted.
        sharing: of their embeddings, see `unmask.electra.sharing`.

    Raises:
        UserError: sizes that cannot be shared.
    """

    def __init__(
        self, generator: ElectraForMaskedLM, model: ElectraForMaskedLM, sharing: Sharing = "shared"
    ) -> None:
        super().__init__()
        self.generator, self.model = generator, model
        self.copy_head = DiscriminatorHead(model.config)
        std = model.config.initializer_range
        for layer in (self.copy_head.dense, self.copy_head.output):
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(layer.bias)
        share_embeddings(generator.encoder, model.encoder, sharing)

    @classmethod
    def fresh(
        cls, generator: ElectraConfig, model: ElectraConfig, sharing: Sharing = "shared"
    ) -> AllTokensMaskedLM:
        """Drawn from torch's global generator."""
        return cls(*fresh_halves(generator, ElectraForMaskedLM, model, sharing), sharing)

    def step(
        self,
        tokens: Tensor,
        masked: Tensor,
        drawn: Tensor,
        layout: Layout,
        types: Tensor | None = None,
        *,
        noise_seed: int,
        temperature: float = 1.0,
    ) -> AllTokensLosses:
        """Arguments as of `ElectraPair.replaced_token_step`."""
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
        encoded = self.model.encoder(filled.ids, layout, types)
        from_softmax = linear_log_probabilities(
            self.model.generator_head(encoded),
            self.model.output_weight,
            tokens,
            self.model.generator_head.output.bias,
        )
        copying = at_least_float32(self.copy_head(encoded))
        written = F.logsigmoid(-copying) + from_softmax
        copied_or_written = torch.logaddexp(F.logsigmoid(copying), written)
        loss = -torch.where(filled.replaced, written, copied_or_written).sum()
        return AllTokensLosses(
            generator_loss_sum=filled.loss_sum,
            loss_sum=loss,
            drawn=drawn.numel(),
            tokens=tokens.numel(),
            generator_hits=filled.hits,
            replaced=filled.replaced.sum(),
            doubted=(filled.replaced & (copying.detach() < 0)).sum(),
        )
