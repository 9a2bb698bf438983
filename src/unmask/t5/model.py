"""T5 on one page (arXiv 1910.10683; v1.1: google-research/text-to-text-transfer-transformer).

What is unusual about it:
- RMS norm before each sub-layer, no bias in any linear layer.
- Scores are not divided by sqrt(d): the initialisation of the queries absorbs it.
- Positions exist only as a bias on attention scores, one table a stack, shared by its layers;
  cross-attention has none.
- v1.0 ties the output matrix to the embedding and scales by d_model^-0.5; v1.1 unties it and gates the
  feed-forward. mT5, ByT5, FLAN-T5 and UL2 are v1.1 in other sizes; umT5 has a position table in each layer.
- In float16 the residual stream, the feed-forward's inside and its last matrix are float32: the published
  weights overflow there otherwise.

Both stacks run on packed token streams (`unmask.nn.ragged`): (total, width), no padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask import hub
from unmask.errors import UserError
from unmask.generation import autoregressive
from unmask.generation.output import GenerationOutput, StreamedToken
from unmask.generation.plan import Plan
from unmask.generation.rules import Constraint
from unmask.generation.scoring import target_rows, token_log_probabilities
from unmask.generation.settings import GenerationSettings
from unmask.nn.activation import activated
from unmask.nn.attention import attention
from unmask.nn.dropout import Dropout, dropout
from unmask.nn.ids import check_batch, check_range
from unmask.nn.losses import linear_cross_entropy
from unmask.nn.norm import RMSNorm
from unmask.nn.pretrained import PretrainedModel
from unmask.nn.ragged import Layout, PackedInput, remove_padding
from unmask.nn.relative_position import RelativePositionBias
from unmask.t5 import checkpoint
from unmask.t5.config import FEED_FORWARDS, T5Config
from unmask.t5.decoding import T5Decoder
from unmask.t5.engine import engine_of

IGNORED_LABEL = -100

#: How far the logits of `advance` may be from those of `step` in float32, relative to 1 + |logit|, where the
#: decoder is not compiled (`T5Engine.is_fused`); there they are the same bits.
ADVANCE_TOLERANCE = 1e-4


class T5Attention(nn.Module):
    """The four matrices of one multi-head attention."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.heads = config.num_heads
        inner = config.num_heads * config.d_kv
        self.query = nn.Linear(config.d_model, inner, bias=False)
        self.key = nn.Linear(config.d_model, inner, bias=False)
        self.value = nn.Linear(config.d_model, inner, bias=False)
        self.output = nn.Linear(inner, config.d_model, bias=False)
        self.dropout_rate = config.dropout_rate

    def split(self, x: Tensor) -> Tensor:
        """(total, heads · d_kv) → (total, heads, d_kv)."""
        return x.view(x.shape[0], self.heads, -1)

    def forward(
        self, x: Tensor, source: Tensor, layout: Layout, source_layout: Layout, **options: Any
    ) -> Tensor:
        """Attend from x (total, d_model) to source (total_source, d_model)."""
        mixed = attention(
            self.split(self.query(x)),
            self.split(self.key(source)),
            self.split(self.value(source)),
            layout,
            source_layout,
            dropout=self.dropout_rate if self.training else 0.0,
            **options,
        )
        return self.output(mixed.flatten(1))


class T5FeedForward(nn.Module):
    """down(act(up(x))), or down(act(gate(x)) · up(x)) in v1.1."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        activation, gated = FEED_FORWARDS[config.feed_forward_proj]
        self.activation = activation
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=False) if gated else None
        self.up = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.dropout_rate = config.dropout_rate

    def forward(self, x: Tensor, places: Tensor | None = None) -> Tensor:
        """(total, d_model) → (total, d_model); places: what dropout depends on."""
        inner = activated(self.activation, self.up(x)) if self.gate is None else self._gated(x, self.gate)
        inner = dropout(inner, self.dropout_rate, places, training=self.training)
        return self.down(inner.to(self.down.weight.dtype))

    def _gated(self, x: Tensor, gate: nn.Linear) -> Tensor:
        gates, values = gate(x), self.up(x)
        if gates.dtype == torch.float16:
            # The product, not its factors, leaves float16's range.
            gates, values = activated(self.activation, gates).float(), values.float()
            return gates * values
        return activated(self.activation, gates, values)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Every change of type or device comes through here: the last matrix does not become float16."""
        super()._apply(fn, recurse)
        if self.down.weight.dtype == torch.float16:
            self.down.float()
        return self


class T5EncoderLayer(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.attention = T5Attention(config)
        self.feed_forward_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.feed_forward = T5FeedForward(config)
        self.dropout = Dropout(config.dropout_rate)

    def forward(self, x: Tensor, layout: Layout, bias: Tensor) -> Tensor:
        normed = self.attention_norm(x)
        attended = self.attention(normed, normed, layout, layout, bias=bias)
        return self.after_attention(x, attended, layout.places)

    def after_attention(self, x: Tensor, attended: Tensor, places: Tensor) -> Tensor:
        """Both residuals, and the feed-forward between them."""
        x = x + self.dropout(attended, places)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x), places), places)


class T5DecoderLayer(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.attention = T5Attention(config)
        self.cross_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.cross_attention = T5Attention(config)
        self.feed_forward_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.feed_forward = T5FeedForward(config)
        self.dropout = Dropout(config.dropout_rate)

    def forward(
        self, x: Tensor, layout: Layout, bias: Tensor, source: Tensor, source_layout: Layout
    ) -> Tensor:
        normed = self.attention_norm(x)
        attended = self.attention(normed, normed, layout, layout, bias=bias, causal=True)
        x = x + self.dropout(attended, layout.places)
        crossed = self.cross_attention(self.cross_norm(x), source, layout, source_layout)
        return self.after_attention(x, crossed, layout.places)

    def after_attention(self, x: Tensor, attended: Tensor, places: Tensor) -> Tensor:
        """Both residuals, and the feed-forward between them."""
        x = x + self.dropout(attended, places)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x), places), places)


class T5Stack(nn.Module):
    """What encoder and decoder share: layers under position biases, then a final norm."""

    def __init__(self, config: T5Config, *, decoder: bool) -> None:
        super().__init__()
        layer = T5DecoderLayer if decoder else T5EncoderLayer
        depth = config.decoder_layers if decoder else config.num_layers
        self.layers = nn.ModuleList(layer(config) for _ in range(depth))
        self.position_biases = nn.ModuleList(
            RelativePositionBias(
                config.num_heads,
                bidirectional=not decoder,
                buckets=config.relative_attention_num_buckets,
                max_distance=config.relative_attention_max_distance,
            )
            for _ in range(depth if config.kind.bias_per_layer else 1)
        )
        self.final_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = Dropout(config.dropout_rate)

    def forward(self, embedded: Tensor, layout: Layout, *source: Any) -> Tensor:
        """(total, d_model) → (total, d_model); a decoder also takes the source stream and its layout."""
        x = self.dropout(embedded, layout.places)
        biases = self.biases(layout.longest, layout.longest)
        for layer, bias in zip(self.layers, biases, strict=True):
            x = layer(x, layout, bias, *source)
        return self.dropout(self.final_norm(x), layout.places)

    def biases(self, queries: int, keys: int, first_query: int = 0) -> list[Tensor]:
        """The (heads, queries, keys) of each layer: its own, or the first's for all of them."""
        made = [bias(queries, keys, first_query) for bias in self.position_biases]
        return made if len(made) == len(self.layers) else made * len(self.layers)


@dataclass(frozen=True)
class EncoderOutput:
    """last_hidden_state: (batch, length, d_model), zeros on padding."""

    last_hidden_state: Tensor


@dataclass(frozen=True)
class Seq2SeqOutput:
    """What a T5 returns.

    Attributes:
        logits: (batch, target_length, vocab_size).
        loss: mean cross-entropy over labels other than -100, in nats; None without labels.
        encoder_last_hidden_state: (batch, source_length, d_model), zeros on padding.
    """

    logits: Tensor
    loss: Tensor | None
    encoder_last_hidden_state: Tensor


class T5Backbone(PretrainedModel):
    """Embedding, encoder and, where asked for, decoder: what every model of this family is built on."""

    config_class = T5Config
    config: T5Config
    #: What stands on disk before the names of all but the head.
    backbone: ClassVar[str] = ""

    def __init__(self, config: T5Config, *, with_decoder: bool) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = T5Stack(config, decoder=False)
        if with_decoder:
            self.decoder = T5Stack(config, decoder=True)

    def pack(self, input_ids: Tensor, attention_mask: Tensor | None) -> PackedInput:
        """A padded batch as a packed stream.

        Raises:
            UserError: no batch of ids, an id outside of the vocabulary, a mask with an empty row or a gap.
        """
        packed = remove_padding(input_ids, attention_mask).without_gaps()
        check_range("input_ids", packed.ids, self.config.vocab_size)
        return packed

    def embed(self, ids: Tensor) -> Tensor:
        """Ids (n,) → the beginning of the residual stream, (n, d_model); float32 in a float16 model."""
        embedded = self.embedding(ids)
        return embedded.float() if embedded.dtype == torch.float16 else embedded

    def encode(self, ids: Tensor, layout: Layout) -> Tensor:
        """Packed ids (total,) → hidden states (total, d_model)."""
        return self.encoder(self.embed(ids), layout)

    def decode(self, ids: Tensor, layout: Layout, source: Tensor, source_layout: Layout) -> Tensor:
        """Packed decoder inputs (total,) → hidden states (total, d_model)."""
        return self.decoder(self.embed(ids), layout, source, source_layout)

    def shift_right(self, targets: Tensor, layout: Layout) -> Tensor:
        """Packed targets → packed decoder inputs: each sequence moved by one behind the start token."""
        shifted = targets.roll(1)
        shifted[layout.starts] = self.config.decoder_start_token_id
        return shifted

    def hub_name(self, name: str) -> str:  # type: ignore[override]
        gated = FEED_FORWARDS[self.config.feed_forward_proj][1]
        return checkpoint.hub_name(name, gated=gated, backbone=self.backbone)

    def hub_state(self) -> dict[str, Tensor]:
        state = super().hub_state()
        if self.is_int8:
            return state
        # One type in the file, also where a float16 model holds float32 matrices.
        kind = self.embedding.weight.dtype
        return {name: tensor.to(kind) for name, tensor in state.items()}

    @property
    def hub_architecture(self) -> str:
        return self.architecture.replace("T5", self.config.kind.prefix, 1)

    @torch.no_grad()
    def fold(self) -> None:
        """Norm weights go into the matrices behind them, where they are quantised with them."""
        for layer in self.modules():
            if isinstance(layer, T5EncoderLayer | T5DecoderLayer):
                _fold(layer.attention_norm, layer.attention.query, layer.attention.key, layer.attention.value)
                _fold(layer.feed_forward_norm, layer.feed_forward.gate, layer.feed_forward.up)
            if isinstance(layer, T5DecoderLayer):
                _fold(layer.cross_norm, layer.cross_attention.query)

    @staticmethod
    def product_of(name: str) -> str:
        # Cross-attention's query reads the decoder, its key and value the encoder.
        parent, _, last = name.rpartition(".")
        if parent.endswith("cross_attention") and last in ("query", "key", "value"):
            return name if last == "query" else f"{parent}.key_value"
        return PretrainedModel.product_of(name)

    @classmethod
    def prepare(cls, config: T5Config, weights: dict[str, Tensor]) -> T5Config:
        """Tidy the names; a separate output matrix in the file decides that it is untied.

        Transformers 5 writes `tie_word_embeddings: true` also beside an output matrix of its own, so the
        tensors are what can be believed.
        """
        checkpoint.tidy(weights, cls.backbone)
        output, shared = weights.get("lm_head.weight"), weights.get("shared.weight")
        if output is None or shared is None:
            return config
        tied = output.shape == shared.shape and torch.equal(output, shared)
        if tied:
            del weights["lm_head.weight"]
        return replace(config, tie_word_embeddings=tied)

    @torch.no_grad()
    def initialise(self) -> None:
        """Mesh-TensorFlow's standard deviations (FACTS of the reference: no 1/sqrt(d) in the scores)."""
        config, factor = self.config, self.config.initializer_factor
        width = config.d_model**-0.5
        stds = {
            "embedding": 1.0,
            "output": (config.num_heads * config.d_kv) ** -0.5,
            "query": (config.d_model * config.d_kv) ** -0.5,
            "key": width,
            "value": width,
            "gate": width,
            "up": width,
            "down": config.d_ff**-0.5,
            "table": width,
        }
        for name, parameter in self.named_parameters():
            place, (owner, kind) = name.split(".")[0], name.split(".")[-2:]
            if kind == "bias":
                parameter.zero_()
            elif owner.endswith("norm"):
                parameter.fill_(factor)
            else:
                inside = place in ("embedding", "encoder", "decoder")
                parameter.normal_(0.0, (stds[owner] if inside else width) * factor)


def _fold(norm: RMSNorm, *linears: nn.Linear | None) -> None:
    """Multiply a norm's weight into the matrices that read its output."""
    for linear in linears:
        if linear is not None:
            linear.weight = nn.Parameter(linear.weight * norm.weight)
    norm.weight = nn.Parameter(torch.ones_like(norm.weight))


class T5EncoderModel(T5Backbone):
    """The encoder alone."""

    architecture = "T5EncoderModel"

    def __init__(self, config: T5Config) -> None:
        super().__init__(config, with_decoder=False)
        self.initialise()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> EncoderOutput:
        """Encode a padded batch.

        Args:
            input_ids: (batch, length) int64.
            attention_mask: (batch, length), nonzero on tokens, one run of them in each row; None: all.
        """
        packed = self.pack(input_ids, attention_mask)
        return EncoderOutput(packed.spread(self.encode(packed.ids, packed.layout)))


class T5ForConditionalGeneration(T5Backbone):
    """T5 whole: text in, text out."""

    architecture = "T5ForConditionalGeneration"

    def __init__(self, config: T5Config) -> None:
        super().__init__(config, with_decoder=True)
        self.output = (
            None if config.tie_word_embeddings else nn.Linear(config.d_model, config.vocab_size, bias=False)
        )
        #: What generation_config.json says beyond the model's own config.
        self.generation_defaults: dict[str, Any] = {}
        self.initialise()

    def decode(self, ids: Tensor, layout: Layout, source: Tensor, source_layout: Layout) -> Tensor:
        """Packed decoder inputs → what the output matrix takes, (total, d_model): scaled in v1.0."""
        return self.scaled(super().decode(ids, layout, source, source_layout))

    def scaled(self, hidden: Tensor) -> Tensor:
        """What leaves the decoder as the output matrix takes it: scaled in v1.0."""
        return hidden * self.config.d_model**-0.5 if self.config.scale_decoder_outputs else hidden

    @torch.no_grad()
    def fold(self) -> None:
        # A tied output matrix becomes one of its own; the embedding is looked up, not multiplied.
        output = self.embedding if self.output is None else self.output
        self.config = replace(self.config, tie_word_embeddings=False)
        self.output = nn.Linear(1, 1, bias=False)
        self.output.weight = nn.Parameter(output.weight * self.decoder.final_norm.weight)
        self.decoder.final_norm.weight = nn.Parameter(torch.ones_like(self.decoder.final_norm.weight))
        super().fold()

    @property
    def output_weight(self) -> Tensor:
        """(vocab_size, d_model)."""
        return self.embedding.weight if self.output is None else self.output.weight

    def loss_sum(
        self,
        inputs: Tensor,
        input_layout: Layout,
        targets: Tensor,
        target_layout: Layout,
        *,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Sum of the targets' cross-entropies in nats, a float32 scalar; all streams packed.

        Args:
            inputs: (total_in,) int64; targets: (total_out,) int64, every position counted.
            label_smoothing: see `linear_cross_entropy`.
        """
        # Both looked up at once: the gradient of a lookup is as large as the table.
        embedded = self.embed(torch.cat([inputs, self.shift_right(targets, target_layout)]))
        of_inputs, of_targets = embedded.split([len(inputs), len(targets)])
        source = self.encoder(of_inputs, input_layout)
        hidden = self.scaled(self.decoder(of_targets, target_layout, source, input_layout))
        return linear_cross_entropy(hidden, self.output_weight, targets, label_smoothing=label_smoothing)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
    ) -> Seq2SeqOutput:
        """Logits for given targets.

        Args:
            input_ids: (batch, source_length) int64, padded on either side.
            attention_mask: (batch, source_length), nonzero on tokens; None: everything is a token.
            labels: (batch, target_length) int64, -100 where nothing is to be predicted; the decoder's inputs
                are made from them.
            decoder_input_ids: (batch, target_length) int64 instead of labels, beginning with the start token.

        Raises:
            UserError: neither or both of labels and decoder_input_ids; ids that are no batch, of another number
                of texts, or outside of the vocabulary.
        """
        if (labels is None) == (decoder_input_ids is None):
            raise UserError("give labels (to train or score) or decoder_input_ids (to step), one of the two")
        packed = self.pack(input_ids, attention_mask)
        source = self.encode(packed.ids, packed.layout)
        given = labels if decoder_input_ids is None else decoder_input_ids
        assert given is not None
        self._check_targets("labels" if decoder_input_ids is None else "decoder_input_ids", given, packed)
        layout = Layout.of([given.shape[1]] * given.shape[0], given.device)
        if decoder_input_ids is None:
            known = given.masked_fill(given == IGNORED_LABEL, self.config.pad_token_id)
            stream = self.shift_right(known.flatten(), layout)
        else:
            stream = decoder_input_ids.flatten()
        hidden = self.decode(stream, layout, source, packed.layout)
        logits = F.linear(hidden, self.output_weight).view(*given.shape, -1)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED_LABEL)
        return Seq2SeqOutput(logits, loss, packed.spread(source))

    def _check_targets(self, name: str, ids: Tensor, source: PackedInput) -> None:
        check_batch(name, ids)
        if ids.shape[0] != source.layout.batch:
            raise UserError(
                f"{name} has {ids.shape[0]} rows, input_ids {source.layout.batch}: give every text one"
            )
        known = ids[ids != IGNORED_LABEL] if name == "labels" else ids
        if known.numel():
            check_range(name, known, self.config.vocab_size)

    @overload
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        decoder_prefix_ids: Tensor | Sequence[int] | Sequence[Sequence[int]] | None = None,
        constraint: Constraint | None = None,
        return_scores: Literal[False] = False,
        **options: Any,
    ) -> Tensor: ...

    @overload
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        decoder_prefix_ids: Tensor | Sequence[int] | Sequence[Sequence[int]] | None = None,
        constraint: Constraint | None = None,
        return_scores: Literal[True],
        **options: Any,
    ) -> GenerationOutput: ...

    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        decoder_prefix_ids: Tensor | Sequence[int] | Sequence[Sequence[int]] | None = None,
        constraint: Constraint | None = None,
        return_scores: bool = False,
        **options: Any,
    ) -> Tensor | GenerationOutput:
        """Write the target of each input: greedily, by beam search or by sampling.

        Args:
            input_ids: (batch, length) int64, padded on either side.
            attention_mask: (batch, length), nonzero on tokens; None: everything is a token.
            decoder_prefix_ids: what every target begins with, behind the start token: (n,) ids for all inputs
                or (batch, n).
            constraint: what may be written: `generation.constraints.Choices`, `generation.grammar.Grammar`.
            return_scores: return a GenerationOutput, the sequences with their scores.
            options: any of `GenerationSettings` by name: max_new_tokens, num_beams, do_sample, …; what is not
                named is as generation_config.json says. Without any limit 511 tokens are written at most (the
                published models' target length of 512, less the start token).

        Returns:
            (batch · num_return_sequences, ≤ max_length) int64: rows begin with the start token and the
            prefix, finished rows are padded.

        Raises:
            UserError: an unknown option, options that exclude each other, a limit that leaves nothing to
                write, a constraint that cannot be met, a token id outside of the vocabulary.
        """
        with torch.inference_mode():
            decoder, plan, sources = self._begin(
                input_ids, attention_mask, decoder_prefix_ids, constraint, return_scores, options
            )
            exact = decoder.engine.is_fused or self.embedding.weight.dtype != torch.float32
            tolerance = 0.0 if exact else ADVANCE_TOLERANCE
            output = autoregressive.generate(decoder, plan, sources, tolerance=tolerance)
        # Copies from outside of inference mode: what was written may become labels.
        output = GenerationOutput(
            output.sequences.clone(), output.token_scores.clone(), output.sequence_scores.clone()
        )
        return output if return_scores else output.sequences

    @torch.inference_mode()
    def stream(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        decoder_prefix_ids: Tensor | Sequence[int] | Sequence[Sequence[int]] | None = None,
        constraint: Constraint | None = None,
        **options: Any,
    ) -> Iterator[StreamedToken]:
        """Like `generate`, each token as soon as it is written: greedily or by sampling.

        Raises:
            UserError: also where beams are asked for, whose tokens are not known until the end.
        """
        decoder, plan, _ = self._begin(
            input_ids, attention_mask, decoder_prefix_ids, constraint, True, options, streaming=True
        )
        return autoregressive.stream(decoder, plan)

    def _begin(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        prefix: Any,
        constraint: Constraint | None,
        with_scores: bool,
        options: dict[str, Any],
        *,
        streaming: bool = False,
    ) -> tuple[T5Decoder, Plan, list[list[int]]]:
        """Encode, and be ready to decode: also the plan and the ids of each source."""
        settings = GenerationSettings.resolve(options, self.generation_defaults)
        packed = self.pack(input_ids, attention_mask)
        config = self.config
        prompt = autoregressive.prompt_of(
            prefix, inputs=packed.layout.batch, start_id=config.decoder_start_token_id, like=packed.ids
        )
        check_range("decoder_prefix_ids", prompt, config.vocab_size)
        plan = Plan(
            prompt=prompt,
            end_id=config.eos_token_id,
            pad_id=config.pad_token_id,
            limit=settings.token_limit(prompt.shape[1], fallback=511),
            settings=settings,
            constraint=constraint,
            with_scores=with_scores,
        )
        if streaming:
            autoregressive.check_streamable(plan)
        engine = engine_of(self)
        source = engine.encode(packed.ids, packed.layout)
        decoder = T5Decoder(engine, source, packed.layout, plan.capacity)
        sources = [ids.tolist() for ids in packed.ids.split(packed.layout.lengths)]
        return decoder, plan, sources

    @torch.no_grad()
    def score(
        self,
        input_ids: Tensor,
        targets: Tensor | Sequence[Sequence[int]],
        attention_mask: Tensor | None = None,
        *,
        per_token: bool = False,
    ) -> Tensor:
        """The log-likelihood of given targets.

        Args:
            input_ids: (batch, length) int64, padded on either side.
            targets: ids of batch · n targets, those of an input side by side, each ending as it is to be
                scored (tokenizers put `</s>`): a tensor padded behind with -100 or the padding id, or lists.
            attention_mask: (batch, length), nonzero on tokens; None: everything is a token.
            per_token: return the log-probability of each token.

        Returns:
            (batch · n,) float32, in nats; per token (batch · n, longest target), 0 on padding.

        Raises:
            UserError: a number of targets that is not a multiple of the inputs, an empty one, an unknown id.
        """
        packed = self.pack(input_ids, attention_mask)
        inputs = packed.layout.batch
        rows = target_rows(
            targets,
            inputs=inputs,
            padding=(IGNORED_LABEL, self.config.pad_token_id),
            vocabulary=self.config.vocab_size,
        )
        layout = Layout.of([len(row) for row in rows], packed.ids.device)
        stream = packed.ids.new_tensor([token for row in rows for token in row])
        source, source_layout = self.encode(packed.ids, packed.layout), packed.layout
        if len(rows) > inputs:
            copies = len(rows) // inputs
            parts = [part for part in source.split(source_layout.lengths) for _ in range(copies)]
            source = torch.cat(parts)
            source_layout = Layout.of([part.shape[0] for part in parts], source.device)
        hidden = self.decode(self.shift_right(stream, layout), layout, source, source_layout)
        scores = layout.pad(
            token_log_probabilities(hidden, stream, lambda states: F.linear(states, self.output_weight))
        )
        return scores if per_token else scores.sum(1)

    def after_loading(self, directory: Path) -> None:
        """Take over generation_config.json."""
        path = directory / hub.GENERATION_CONFIG
        self.generation_defaults = hub.read_json(path) if path.is_file() else {}

    def save_pretrained(self, directory: Any) -> None:
        super().save_pretrained(directory)
        hub.write_json(Path(directory) / hub.GENERATION_CONFIG, self.generation_config)

    @property
    def generation_config(self) -> dict[str, Any]:
        """What generation_config.json holds: defaults of `generate`, and the special ids that it needs."""
        names = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
        return self.generation_defaults | {name: getattr(self.config, name) for name in names}
