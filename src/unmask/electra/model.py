"""ELECTRA on one page (arXiv 2003.10555; google-research/electra `model/modeling.py`, `run_pretraining.py`).

What is unusual about it:
- Generator and discriminator are the same encoder, BERT's, under different heads: norms come after the
  residual, positions are learned, GELU is the exact one.
- Embeddings may be narrower than the layers; one linear layer joins them.
- The generator's head goes back to the embeddings' width, and its output matrix is the token embedding.
- The discriminator's head gives one number a token: above 0 means "replaced".

Everything runs on packed token streams (`unmask.nn.ragged`): (total, width), no padding. Users' padded or
ragged batches are packed on the way in and put back on the way out (`unmask.electra.batch`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.electra import checkpoint
from unmask.electra.batch import Batch, Rows, check_length
from unmask.electra.config import ACTIVATIONS, ElectraConfig
from unmask.electra.engine import engine_of
from unmask.errors import UserError
from unmask.nn.activation import activated
from unmask.nn.attention import attention
from unmask.nn.dropout import Dropout
from unmask.nn.ids import check_labels
from unmask.nn.joined import joined_linear
from unmask.nn.losses import CHUNK_ROWS, linear_cross_entropy
from unmask.nn.pretrained import PretrainedModel
from unmask.nn.ragged import Layout
from unmask.nn.sampling import sample_and_likeliest

IGNORED_LABEL = -100


def activation(config: ElectraConfig) -> Callable[[Tensor], Tensor]:
    return partial(activated, ACTIVATIONS[config.hidden_act])


class ElectraEmbeddings(nn.Module):
    """norm(token + position + segment). A pre-training pair has one for both halves."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        width = config.embedding_size
        self.token = nn.Embedding(config.vocab_size, width)
        self.position = nn.Embedding(config.max_position_embeddings, width)
        self.token_type = nn.Embedding(config.type_vocab_size, width)
        self.norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, ids: Tensor, layout: Layout, positions: Tensor, types: Tensor | None) -> Tensor:
        """(total,) each → (total, embedding_size); no types means the first segment throughout."""
        segment = self.token_type.weight[0] if types is None else self.token_type(types)
        return self.dropout(self.norm(self.token(ids) + segment + self.position(positions)), layout.places)


class ElectraLayer(nn.Module):
    """norm(x + attention(x)), then norm(x + feed_forward(x)): BERT's layer."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.attention_output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.up = nn.Linear(width, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, width)
        self.feed_forward_norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.activation = activation(config)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.attention_dropout = config.attention_probs_dropout_prob

    def split(self, x: Tensor) -> Tensor:
        """(total, hidden_size) → (total, heads, head_width)."""
        return x.view(x.shape[0], self.heads, -1)

    def forward(self, x: Tensor, layout: Layout, *, causal: bool = False) -> Tensor:
        """(total, hidden_size) → (total, hidden_size); causal: a token sees itself and what comes before it."""
        return self.after_attention(x, self.mixed(x, layout, causal=causal), layout.places)

    def mixed(self, x: Tensor, layout: Layout, *, causal: bool = False) -> Tensor:
        """(total, hidden_size) → (total, heads, head_width): what attention brings each token from the others."""
        query, key, value = joined_linear(x, self.query, self.key, self.value)
        return attention(
            self.split(query),
            self.split(key),
            self.split(value),
            layout,
            layout,
            causal=causal,
            scale=(x.shape[-1] // self.heads) ** -0.5,
            dropout=self.attention_dropout if self.training else 0.0,
        )

    def after_attention(self, x: Tensor, mixed: Tensor, places: Tensor | None = None) -> Tensor:
        """The rest of the layer, token by token."""
        return self.feed_forward(self.add_attention(x, mixed, places), places)

    def add_attention(self, x: Tensor, mixed: Tensor, places: Tensor | None = None) -> Tensor:
        """norm(x + what attention has mixed, (total, heads, head_width)); places: what dropout depends on."""
        return self.attention_norm(x + self.dropout(self.attention_output(mixed.flatten(1)), places))

    def feed_forward(self, x: Tensor, places: Tensor | None = None) -> Tensor:
        inner = self.down(self.activation(self.up(x)))
        return self.feed_forward_norm(x + self.dropout(inner, places))


def embedding_projection(config: ElectraConfig) -> nn.Linear | None:
    """The linear layer from the embeddings' width to the layers'; None where the two are one."""
    if config.embedding_size == config.hidden_size:
        return None
    return nn.Linear(config.embedding_size, config.hidden_size)


class ElectraEncoder(nn.Module):
    """Embeddings, the linear layer that joins them where widths differ, layers."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = ElectraEmbeddings(config)
        self.projection = embedding_projection(config)
        self.layers = nn.ModuleList(ElectraLayer(config) for _ in range(config.num_hidden_layers))

    def forward(
        self, ids: Tensor, layout: Layout, types: Tensor | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """A packed stream → (total, hidden_size).

        Args:
            ids: (total,) int64.
            types: (total,) int64 segments; None: all of the first.
            positions: (total,) int64; None: each sequence counts from 0.

        Raises:
            UserError: a sequence longer than `max_position_embeddings`.
        """
        check_length(layout.longest, self.config.max_position_embeddings)
        positions = layout.positions if positions is None else positions
        engine = engine_of(self)
        if engine is not None:
            return engine.encode(ids, layout, types, positions)
        x = self.embeddings(ids, layout, positions, types)
        if self.projection is not None:
            x = self.projection(x)
        for layer in self.layers:
            x = layer(x, layout)
        return x

    def first_tokens(
        self, ids: Tensor, layout: Layout, types: Tensor | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """A packed stream → (batch, hidden_size), of the first token of each sequence, [CLS]."""
        engine = engine_of(self)
        if engine is None:
            return self(ids, layout, types, positions).index_select(0, layout.starts)
        check_length(layout.longest, self.config.max_position_embeddings)
        return engine.first_tokens(ids, layout, types, layout.positions if positions is None else positions)


class OutputLayer(nn.Module):
    """The generator's last layer: a bias, and a matrix only where it is not the token embedding."""

    weight: Tensor | None

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        own = None if config.tie_word_embeddings else torch.empty(config.vocab_size, config.embedding_size)
        self.register_parameter("weight", None if own is None else nn.Parameter(own))


class GeneratorHead(nn.Module):
    """norm(gelu(dense(x))), back to the embeddings' width; then the output layer."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.embedding_size)
        self.norm = nn.LayerNorm(config.embedding_size, config.layer_norm_eps)
        self.output = OutputLayer(config)

    def forward(self, x: Tensor) -> Tensor:
        """(n, hidden_size) → (n, embedding_size)."""
        return self.norm(activated("gelu", self.dense(x)))


class DiscriminatorHead(nn.Module):
    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = activation(config)
        self.output = nn.Linear(config.hidden_size, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, hidden_size) → (n,)."""
        return self.output(self.activation(self.dense(x))).squeeze(-1)


@dataclass(frozen=True)
class ElectraOutput:
    """What an ELECTRA returns.

    Attributes:
        logits: (batch, width, …) of tokens, zeros on padding, or (batch, labels) of sequences.
        loss: a mean, in nats where it is an entropy; None without labels.
    """

    logits: Tensor
    loss: Tensor | None


def initialise(model: nn.Module, std: float, glorot: tuple[str, ...]) -> None:
    """Draw weights in place: normal, truncated at two deviations; Glorot uniform for `glorot`; biases 0.

    Source: google-research/electra `create_initializer` and the `tf.layers.dense` calls without one.

    Args:
        glorot: names of linear layers.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name in glorot:
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Linear | nn.Embedding | OutputLayer) and module.weight is not None:
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        if isinstance(getattr(module, "bias", None), Tensor):
            nn.init.zeros_(module.bias)


class ElectraBackbone(PretrainedModel):
    """What the models of this family share: the encoder, their names on disk, their first weights."""

    config_class = ElectraConfig
    config: ElectraConfig
    #: Linear layers that start Glorot uniform: TensorFlow's default, where Google's code names no other.
    glorot: ClassVar[tuple[str, ...]] = ("encoder.projection",)

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ElectraEncoder(config)

    @staticmethod
    def hub_name(name: str) -> str:
        return checkpoint.hub_name(name)

    @classmethod
    def prepare(cls, config: ElectraConfig, weights: dict[str, Tensor]) -> ElectraConfig:
        checkpoint.settle(weights)
        return config

    @torch.no_grad()
    def initialise(self) -> None:
        initialise(self, self.config.initializer_range, self.glorot)

    def pack(self, input_ids: Rows, attention_mask: Tensor | None, token_type_ids: Rows | None) -> Batch:
        return Batch.of(self.config, input_ids, attention_mask, token_type_ids, self.device)

    def encode(self, batch: Batch) -> Tensor:
        """(total, hidden_size); positions are the batch's columns, as in Transformers."""
        packed = batch.packed
        return self.encoder(packed.ids, packed.layout, batch.types, packed.columns)

    def encode_first(self, batch: Batch) -> Tensor:
        """(batch, hidden_size): what speaks for each sequence as a whole."""
        packed = batch.packed
        return self.encoder.first_tokens(packed.ids, packed.layout, batch.types, packed.columns)


class ElectraForMaskedLM(ElectraBackbone):
    """The generator: which token belongs here?"""

    architecture = "ElectraForMaskedLM"

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__(config)
        self.generator_head = GeneratorHead(config)
        self.initialise()

    @classmethod
    def prepare(cls, config: ElectraConfig, weights: dict[str, Tensor]) -> ElectraConfig:
        """Drop a copy of the embedding; a different output matrix in the file decides that it is untied."""
        if any(name.startswith("cls.predictions.") for name in weights) and config.hidden_act != "gelu":
            raise UserError(
                f"a BERT's masked-LM head with hidden_act {config.hidden_act!r} is none of ELECTRA's, "
                "whose generator has 'gelu' there: load its encoder alone (ElectraModel)"
            )
        checkpoint.settle(weights)
        output = weights.get(checkpoint.OUTPUT_EMBEDDINGS)
        embedding = weights.get(checkpoint.WORD_EMBEDDINGS)
        if output is None or embedding is None:
            return replace(config, tie_word_embeddings=True)
        if output.shape == embedding.shape and torch.equal(output, embedding):
            del weights[checkpoint.OUTPUT_EMBEDDINGS]
            return replace(config, tie_word_embeddings=True)
        return replace(config, tie_word_embeddings=False)

    @property
    def output_weight(self) -> Tensor:
        """(vocab_size, embedding_size)."""
        own = self.generator_head.output.weight
        return self.encoder.embeddings.token.weight if own is None else own

    def hidden(self, ids: Tensor, layout: Layout, types: Tensor | None = None, *, at: Tensor) -> Tensor:
        """What the logits are made from, at some places of a packed stream only.

        Args:
            at: (n,) int64 places in the stream.

        Returns:
            (n, embedding_size).
        """
        return self.generator_head(self.encoder(ids, layout, types).index_select(0, at))

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, embedding_size) → (n, vocab_size)."""
        return F.linear(hidden, self.output_weight, self.generator_head.output.bias)

    def masked_lm_loss_sum(self, hidden: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Sum of the cross-entropies in nats, a float32 scalar; the logits are made chunk by chunk.

        Args:
            hidden: (n, embedding_size) from `hidden`; targets: (n,) int64, every one counted.
            weights: (n,) how often each is counted; None: once.
        """
        bias = self.generator_head.output.bias
        return linear_cross_entropy(hidden, self.output_weight, targets, bias, row_weights=weights)

    @torch.no_grad()
    def sample(self, hidden: Tensor, uniforms: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Draw a token for each place, without gradient.

        Args:
            hidden: (n, embedding_size) from `hidden`.
            uniforms: (n,) float64 in [0, 1), which decide the draw.

        Returns:
            (n,) int64 tokens drawn from softmax(logits / temperature), and (n,) int64 likeliest tokens.
        """
        drawn, likeliest = [], []
        for rows, numbers in zip(hidden.split(CHUNK_ROWS), uniforms.split(CHUNK_ROWS), strict=True):
            ids, best = sample_and_likeliest(self.logits(rows), numbers, temperature)
            drawn.append(ids)
            likeliest.append(best)
        return torch.cat(drawn), torch.cat(likeliest)

    @torch.no_grad()
    def likeliest(self, hidden: Tensor) -> Tensor:
        """(n, embedding_size) from `hidden` → (n,) int64, the likeliest token of each place."""
        return torch.cat([self.logits(rows).argmax(-1) for rows in hidden.split(CHUNK_ROWS)])

    def forward(
        self,
        input_ids: Rows,
        attention_mask: Tensor | None = None,
        token_type_ids: Rows | None = None,
        labels: Rows | None = None,
    ) -> ElectraOutput:
        """Logits (batch, width, vocab_size) over the vocabulary for every token.

        Args:
            input_ids: (batch, width) int64, padded on either side, or a list of lists of ids.
            attention_mask: (batch, width), nonzero on tokens; None: everything is a token.
            token_type_ids: as input_ids, each token's segment; None: all of the first.
            labels: as input_ids, -100 where nothing is to be predicted. The loss is the mean over the others.
        """
        batch = self.pack(input_ids, attention_mask, token_type_ids)
        logits = self.logits(self.generator_head(self.encode(batch)))
        loss = None
        if labels is not None:
            loss = cross_entropy(logits, batch.select(labels, "labels"))
        return ElectraOutput(batch.packed.spread(logits), loss)


class ElectraForPreTraining(ElectraBackbone):
    """The discriminator: was this token replaced?"""

    architecture = "ElectraForPreTraining"
    fresh_heads = ("discriminator_head.",)
    glorot = ("encoder.projection", "discriminator_head.output")

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__(config)
        self.discriminator_head = DiscriminatorHead(config)
        self.initialise()

    def token_logits(self, ids: Tensor, layout: Layout, types: Tensor | None = None) -> Tensor:
        """A packed stream → (total,): above 0 means "replaced"."""
        return self.discriminator_head(self.encoder(ids, layout, types))

    def forward(
        self,
        input_ids: Rows,
        attention_mask: Tensor | None = None,
        token_type_ids: Rows | None = None,
        labels: Rows | None = None,
    ) -> ElectraOutput:
        """Logits (batch, width): above 0 means "replaced".

        Args:
            input_ids, attention_mask, token_type_ids: as for `ElectraForMaskedLM`.
            labels: as input_ids, 1 where a token was replaced, else 0. The loss is the mean binary
                cross-entropy over all tokens.
        """
        batch = self.pack(input_ids, attention_mask, token_type_ids)
        logits = self.discriminator_head(self.encode(batch))
        loss = None
        if labels is not None:
            replaced = batch.select(labels, "labels").float()
            loss = F.binary_cross_entropy_with_logits(logits.float(), replaced)
        return ElectraOutput(batch.packed.spread(logits), loss)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    known = check_labels(labels, logits, ignored=IGNORED_LABEL)
    return F.cross_entropy(logits.float(), known, ignore_index=IGNORED_LABEL)
