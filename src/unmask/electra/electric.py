"""Electric (Clark et al. 2020, arXiv 2012.08561): an energy-based cloze model, trained by noise-contrastive
estimation, that scores a whole text in one pass.

The discriminator's head gives each token an energy E(x)_t, with exp(-E(x)_t) an estimate of p(x_t | all others). It
learns to tell tokens of the text from noise of a known distribution q: a token is noise with log odds

    E(x)_t + log q(x_t | all others) + log(rate / (1 - rate))

so that what q explains need not be learnt. Unlike in replaced-token detection every drawn token counts as noise, also
where the sample is the original. q has to be known for every token from the others alone, so the generator is a
*two-tower* model: one reads from the left, one from the right, and neither sees the token that it is asked for.

Differences from the reference (google-research/electra): [CLS], [SEP] and the like are left out of both losses,
and q learns at every token, not only at the drawn ones, as its distribution is made for all of them anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.electra.config import ElectraConfig
from unmask.electra.model import ElectraEmbeddings, ElectraForPreTraining, ElectraLayer
from unmask.electra.sharing import check_sizes
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.nn.losses import CHUNK_ROWS, at_least_float32, linear_log_probabilities
from unmask.nn.ragged import Layout
from unmask.nn.sampling import sample, uniforms
from unmask.nn.sums import Sums
from unmask.nn.transfer import to_device

#: Texts that are scored together.
SCORED_TOGETHER = 64


class TwoTowers(nn.Module):
    """q: a distribution for every token that depends on all others and not on the token itself.

    The hidden state at t is made from what the left tower knows at t - 1 and the right one at t + 1; beyond the ends
    stand zeros.

    Args:
        config: of one tower; both are as deep and as wide.
        embeddings: shared with the energy model.
    """

    def __init__(self, config: ElectraConfig, embeddings: ElectraEmbeddings) -> None:
        super().__init__()
        width, narrow = config.hidden_size, config.embedding_size
        self.embeddings = embeddings
        self.projection = nn.Linear(narrow, width)
        self.left = nn.ModuleList(ElectraLayer(config) for _ in range(config.num_hidden_layers))
        self.right = nn.ModuleList(ElectraLayer(config) for _ in range(config.num_hidden_layers))
        self.dense = nn.Linear(2 * width, narrow)
        self.norm = nn.LayerNorm(narrow, config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        std = config.initializer_range
        for part in (self.projection, self.left, self.right, self.dense):
            for module in part.modules():
                if isinstance(module, nn.Linear):
                    nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
                    nn.init.zeros_(module.bias)

    def forward(self, ids: Tensor, layout: Layout, types: Tensor | None = None) -> Tensor:
        """A packed stream → (total, embedding_size), what the logits of each token are made from."""
        x = self.projection(self.embeddings(ids, layout, layout.positions, types))
        lengths = to_device(torch.tensor(layout.lengths), ids.device)
        last = torch.repeat_interleave(lengths - 1, lengths)
        starts = torch.repeat_interleave(layout.starts, lengths)
        backwards = starts + last - layout.positions
        from_left, from_right = x, x.index_select(0, backwards)
        for layer in self.left:
            from_left = layer(from_left, layout, causal=True)
        for layer in self.right:
            from_right = layer(from_right, layout, causal=True)
        from_right = from_right.index_select(0, backwards)
        before = F.pad(from_left[:-1], (0, 0, 1, 0)).masked_fill((layout.positions == 0)[:, None], 0)
        after = F.pad(from_right[1:], (0, 0, 0, 1)).masked_fill((layout.positions == last)[:, None], 0)
        return self.norm(F.gelu(self.dense(torch.cat([before, after], -1))))

    def log_q(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """(n, embedding_size), (n,) int64 → (n,) log probabilities, in nats."""
        return linear_log_probabilities(hidden, self.embeddings.token.weight, tokens, self.bias)

    @torch.no_grad()
    def sample(self, hidden: Tensor, uniforms: Tensor) -> Tensor:
        """(n, embedding_size), (n,) float64 in [0, 1) → (n,) int64 tokens drawn from q."""
        table = self.embeddings.token.weight
        chunks = zip(hidden.split(CHUNK_ROWS), uniforms.split(CHUNK_ROWS), strict=True)
        return torch.cat([sample(F.linear(rows, table, self.bias), some) for rows, some in chunks])


@dataclass(frozen=True)
class ElectricLosses(Sums):
    """What one step measured: sums over the tokens that are not special, and counts.

    Attributes:
        noise_loss_sum: cross-entropies of q, energy_loss_sum: binary ones of noise against text; float32, in nats.
        tokens, drawn: how many tokens are not special, how many of them are noise.
        hits, found: tokens judged rightly, noise that is judged to be noise.
    """

    noise_loss_sum: Tensor
    energy_loss_sum: Tensor
    tokens: int
    drawn: int
    hits: Tensor
    found: Tensor

    def loss(self, weight: float) -> Tensor:
        """1 · q (mean over tokens) + weight · noise or text (mean over tokens)."""
        return (self.noise_loss_sum + weight * self.energy_loss_sum) / self.tokens

    def metrics(self) -> dict[str, Tensor]:
        """Means for a log: of the noise model its loss, of the energy model loss, accuracy and recall on noise."""
        return {
            "noise_loss": self.noise_loss_sum.detach() / self.tokens,
            "energy_loss": self.energy_loss_sum.detach() / self.tokens,
            "energy_accuracy": self.hits / self.tokens,
            "energy_recall": self.found / self.drawn,
        }


class Electric(nn.Module):
    """The energy model and its noise, which share their embeddings.

    Args:
        noise: sizes of each tower, see `TwoTowers`.
        energy: sizes of the model that is wanted.

    Raises:
        UserError: sizes that cannot be shared.
    """

    def __init__(self, noise: ElectraConfig, energy: ElectraConfig) -> None:
        super().__init__()
        check_sizes(noise, energy, "shared")
        self.energy = ElectraForPreTraining(energy)
        self.noise = TwoTowers(noise, self.energy.encoder.embeddings)

    def step(
        self,
        tokens: Tensor,
        drawn: Tensor,
        ordinary: Tensor,
        layout: Layout,
        types: Tensor | None = None,
        *,
        rate: float,
        noise_seed: int,
    ) -> ElectricLosses:
        """Noise-contrastive estimation (paper, section 2.2).

        Args:
            tokens: (total,) int64 packed ids.
            drawn: (n,) int64 places that become noise, each an ordinary one.
            ordinary: (m,) int64 places of tokens that are not special.
            layout, types: as of `ElectraPair.replaced_token_step`.
            rate: expected share of drawn places among ordinary ones.
            noise_seed: decides the noise, together with q and the tokens' numbers in the whole batch.
        """
        hidden = self.noise(tokens, layout, types)
        of_text = self.noise.log_q(hidden.index_select(0, ordinary), tokens.index_select(0, ordinary))
        at_drawn = hidden.detach().index_select(0, drawn)
        sampled = self.noise.sample(at_drawn, uniforms(noise_seed, layout.places.index_select(0, drawn)))
        with torch.no_grad():
            of_noise = self.noise.log_q(at_drawn, sampled)

        log_q = of_text.new_zeros(tokens.shape).index_copy(0, ordinary, of_text.detach())
        log_q = log_q.index_copy(0, drawn, of_noise)
        is_noise = torch.zeros_like(tokens, dtype=torch.bool).index_fill(0, drawn, True)
        energies = at_least_float32(
            self.energy.token_logits(tokens.index_copy(0, drawn, sampled), layout, types)
        )
        log_odds = energies + log_q + torch.logit(torch.tensor(rate)).item()
        log_odds, is_noise = log_odds.index_select(0, ordinary), is_noise.index_select(0, ordinary)
        suspected = log_odds.detach() > 0
        return ElectricLosses(
            noise_loss_sum=-of_text.sum(),
            energy_loss_sum=F.binary_cross_entropy_with_logits(
                log_odds, is_noise.to(log_odds), reduction="sum"
            ),
            tokens=ordinary.numel(),
            drawn=drawn.numel(),
            hits=(suspected == is_noise).sum(),
            found=(suspected & is_noise).sum(),
        )


@torch.inference_mode()
def score_texts(
    model: ElectraForPreTraining, tokenizer: ElectraTokenizer, texts: Sequence[str]
) -> list[float]:
    """Pseudo-log-likelihoods in nats, higher for likelier texts: minus the sum of the energies of each text's tokens.

    One pass for all tokens, where a masked LM needs one for each (Salazar et al. 2020, arXiv 1910.14659).

    Args:
        model: the `discriminator/` of a model pre-trained with the objective "electric"; one that was trained
            to detect replaced tokens has no energies.
        texts: any number, each short enough for the model's positions.

    Raises:
        UserError: a text that is too long.
    """
    special = torch.tensor(sorted(tokenizer.special_ids))
    scores: list[float] = []
    for first in range(0, len(texts), SCORED_TOGETHER):
        rows = tokenizer(list(texts[first : first + SCORED_TOGETHER]))["input_ids"]
        layout = Layout.of([len(row) for row in rows], model.device)
        ids = torch.tensor([token for row in rows for token in row])
        energies = model.token_logits(ids.to(model.device), layout).float().cpu()
        energies = energies.masked_fill(torch.isin(ids, special), 0)
        scores += [-float(part.sum()) for part in energies.split([len(row) for row in rows])]
    return scores
