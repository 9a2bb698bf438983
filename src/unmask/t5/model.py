"""T5 on one page (arXiv 1910.10683; v1.1: google-research/text-to-text-transfer-transformer).

What is unusual about it:
- RMS norm before each sub-layer, no bias in any linear layer.
- Scores are not divided by sqrt(d): the initialisation of the queries absorbs it.
- Positions exist only as a bias on attention scores, one table a stack, shared by its layers;
  cross-attention has none.
- v1.0 ties the output matrix to the embedding and scales by d_model^-0.5; v1.1 unties it and gates the
  feed-forward.

Both stacks run on packed token streams (`unmask.nn.ragged`): (total, width), no padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask import hub
from unmask.generation import autoregressive
from unmask.generation.output import GenerationOutput, StreamedToken
from unmask.generation.plan import Plan
from unmask.generation.rules import Constraint
from unmask.generation.scoring import target_rows, token_log_probabilities
from unmask.generation.settings import GenerationSettings
from unmask.nn.attention import attention
from unmask.nn.losses import linear_cross_entropy
from unmask.nn.norm import RMSNorm
from unmask.nn.pretrained import PretrainedModel
from unmask.nn.ragged import Layout, remove_padding
from unmask.nn.relative_position import RelativePositionBias
from unmask.t5 import checkpoint
from unmask.t5.config import FEED_FORWARDS, T5Config
from unmask.t5.decoding import T5Decoder

IGNORED_LABEL = -100

#: How far the logits of `advance` may be from those of `step` in float32, relative to 1 + |logit|.
ADVANCE_TOLERANCE = 1e-4

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


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
        self.activation = ACTIVATIONS[activation]
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=False) if gated else None
        self.up = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.dropout_rate = config.dropout_rate

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            inner = self.activation(self.up(x))
        else:
            inner = self.activation(self.gate(x)) * self.up(x)
        return self.down(F.dropout(inner, self.dropout_rate, self.training))


class T5EncoderLayer(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.attention = T5Attention(config)
        self.feed_forward_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.feed_forward = T5FeedForward(config)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x: Tensor, layout: Layout, bias: Tensor) -> Tensor:
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, normed, layout, layout, bias=bias))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class T5DecoderLayer(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.attention = T5Attention(config)
        self.cross_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.cross_attention = T5Attention(config)
        self.feed_forward_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.feed_forward = T5FeedForward(config)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(
        self, x: Tensor, layout: Layout, bias: Tensor, source: Tensor, source_layout: Layout
    ) -> Tensor:
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, normed, layout, layout, bias=bias, causal=True))
        crossed = self.cross_attention(self.cross_norm(x), source, layout, source_layout)
        x = x + self.dropout(crossed)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class T5Stack(nn.Module):
    """What encoder and decoder share: layers under one position bias, then a final norm."""

    def __init__(self, config: T5Config, *, decoder: bool) -> None:
        super().__init__()
        layer = T5DecoderLayer if decoder else T5EncoderLayer
        depth = config.decoder_layers if decoder else config.num_layers
        self.layers = nn.ModuleList(layer(config) for _ in range(depth))
        self.position_bias = RelativePositionBias(
            config.num_heads,
            bidirectional=not decoder,
            buckets=config.relative_attention_num_buckets,
            max_distance=config.relative_attention_max_distance,
        )
        self.final_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, embedded: Tensor, layout: Layout, *source: Any) -> Tensor:
        """(total, d_model) → (total, d_model); a decoder also takes the source stream and its layout."""
        bias = self.position_bias(layout.longest, layout.longest)
        x = self.dropout(embedded)
        for layer in self.layers:
            x = layer(x, layout, bias, *source)
        return self.dropout(self.final_norm(x))


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


class _T5(PretrainedModel):
    """What the models of this family share on disk and at birth."""

    config_class = T5Config
    config: T5Config

    def hub_name(self, name: str) -> str:  # type: ignore[override]
        return checkpoint.hub_name(name, gated=FEED_FORWARDS[self.config.feed_forward_proj][1])

    @classmethod
    def prepare(cls, config: T5Config, weights: dict[str, Tensor]) -> T5Config:
        """Drop copies of the embedding; a separate output matrix in the file decides that it is untied.

        Transformers 5 writes `tie_word_embeddings: true` also beside an output matrix of its own, so the
        tensors are what can be believed.
        """
        for copy in checkpoint.EMBEDDING_COPIES:
            tensor = weights.pop(copy, None)
            if tensor is not None:
                weights.setdefault("shared.weight", tensor)
        for unused in checkpoint.UNUSED:
            weights.pop(unused, None)
        output, shared = weights.get("lm_head.weight"), weights.get("shared.weight")
        if output is None or shared is None:
            return config
        if output.shape == shared.shape and torch.equal(output, shared):
            del weights["lm_head.weight"]
            tied = True
        else:
            tied = False
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
            owner = name.split(".")[-2]
            if name == "output.weight":
                parameter.normal_(0.0, width * factor)
            elif owner.endswith("norm"):
                parameter.fill_(factor)
            else:
                parameter.normal_(0.0, stds[owner] * factor)


class T5EncoderModel(_T5):
    """The encoder alone."""

    architecture = "T5EncoderModel"

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = T5Stack(config, decoder=False)
        self.initialise()

    def encode(self, ids: Tensor, layout: Layout) -> Tensor:
        """Packed ids (total,) → hidden states (total, d_model)."""
        return self.encoder(self.embedding(ids), layout)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> EncoderOutput:
        """Encode a padded batch.

        Args:
            input_ids: (batch, length) int64.
            attention_mask: (batch, length), nonzero on tokens, one run of them in each row; None: all.
        """
        packed = remove_padding(input_ids, attention_mask).without_gaps()
        return EncoderOutput(packed.spread(self.encode(packed.ids, packed.layout)))


class T5ForConditionalGeneration(_T5):
    """T5 whole: text in, text out."""

    architecture = "T5ForConditionalGeneration"

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = T5Stack(config, decoder=False)
        self.decoder = T5Stack(config, decoder=True)
        self.output = (
            None if config.tie_word_embeddings else nn.Linear(config.d_model, config.vocab_size, bias=False)
        )
        #: What generation_config.json says beyond the model's own config.
        self.generation_defaults: dict[str, Any] = {}
        self.initialise()

    def encode(self, ids: Tensor, layout: Layout) -> Tensor:
        """Packed ids (total,) → hidden states (total, d_model)."""
        return self.encoder(self.embedding(ids), layout)

    def decode(self, ids: Tensor, layout: Layout, source: Tensor, source_layout: Layout) -> Tensor:
        """Packed decoder inputs → hidden states (total, d_model), scaled where v1.0 scales them."""
        hidden = self.decoder(self.embedding(ids), layout, source, source_layout)
        return hidden * self.config.d_model**-0.5 if self.config.scale_decoder_outputs else hidden

    @property
    def output_weight(self) -> Tensor:
        """(vocab_size, d_model)."""
        return self.embedding.weight if self.output is None else self.output.weight

    def shift_right(self, targets: Tensor, layout: Layout) -> Tensor:
        """Packed targets → packed decoder inputs: each sequence moved by one behind the start token."""
        shifted = targets.roll(1)
        shifted[layout.starts] = self.config.decoder_start_token_id
        return shifted

    def loss_sum(
        self, inputs: Tensor, input_layout: Layout, targets: Tensor, target_layout: Layout
    ) -> Tensor:
        """Sum of the targets' cross-entropies in nats, a float32 scalar; all streams packed.

        Args:
            inputs: (total_in,) int64; targets: (total_out,) int64, every position counted.
        """
        source = self.encode(inputs, input_layout)
        decoder_inputs = self.shift_right(targets, target_layout)
        hidden = self.decode(decoder_inputs, target_layout, source, input_layout)
        return linear_cross_entropy(hidden, self.output_weight, targets)

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
            ValueError: neither or both of labels and decoder_input_ids.
        """
        if (labels is None) == (decoder_input_ids is None):
            raise ValueError("give labels (to train or score) or decoder_input_ids (to step), one of the two")
        packed = remove_padding(input_ids, attention_mask).without_gaps()
        source = self.encode(packed.ids, packed.layout)
        given = labels if decoder_input_ids is None else decoder_input_ids
        assert given is not None
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

    @torch.inference_mode()
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
                write, a constraint that cannot be met.
        """
        decoder, plan, sources = self._begin(
            input_ids, attention_mask, decoder_prefix_ids, constraint, return_scores, options
        )
        tolerance = ADVANCE_TOLERANCE if self.embedding.weight.dtype == torch.float32 else 0.0
        output = autoregressive.generate(decoder, plan, sources, tolerance=tolerance)
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
        packed = remove_padding(input_ids, attention_mask).without_gaps()
        config = self.config
        prompt = autoregressive.prompt_of(
            prefix, inputs=packed.layout.batch, start_id=config.decoder_start_token_id, like=packed.ids
        )
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
        source = self.encode(packed.ids, packed.layout)
        decoder = T5Decoder(self, source, packed.layout, plan.capacity)
        sources = [ids.tolist() for ids in packed.ids.split(packed.layout.lengths)]
        return decoder, plan, sources

    @torch.inference_mode()
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
        packed = remove_padding(input_ids, attention_mask).without_gaps()
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
        special = {
            name: getattr(self.config, name)
            for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id")
        }
        hub.write_json(Path(directory) / hub.GENERATION_CONFIG, self.generation_defaults | special)
