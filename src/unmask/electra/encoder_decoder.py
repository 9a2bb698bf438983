"""An encoder–decoder warm-started from an ELECTRA, on one page (Rothe et al. 2020, arXiv 1907.12461: BERT2BERT).

What is unusual about it:
- Both halves are ELECTRA's encoder, and both start from the same checkpoint. In the decoder, self-attention looks
  back only, and between it and the feed-forward stands attention over the encoder's output: its weights are the only
  ones that have no checkpoint to start from (section 2).
- The output layer is a generator's, over the decoder's token embedding.
- [CLS] begins what is written, [SEP] ends it.

Directories are those of Transformers' `EncoderDecoderModel`, whose decoder is an `ElectraForCausalLM`; one of two
BERTs has the same layout and loads as well.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask import hub
from unmask.electra import checkpoint
from unmask.electra.batch import Batch, Rows, check_length
from unmask.electra.config import ElectraConfig
from unmask.electra.decoding import CachedDecoder
from unmask.electra.heads import ElectraModel
from unmask.electra.model import (
    IGNORED_LABEL,
    ElectraBackbone,
    ElectraEmbeddings,
    ElectraEncoder,
    ElectraForMaskedLM,
    ElectraLayer,
    ElectraOutput,
    GeneratorHead,
    embedding_projection,
    initialise,
)
from unmask.electra.pair import DISCRIMINATOR, GENERATOR
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.generation import autoregressive
from unmask.generation.output import GenerationOutput, StreamedToken
from unmask.generation.plan import Plan
from unmask.generation.rules import Constraint
from unmask.generation.settings import GenerationSettings
from unmask.nn.attention import attention
from unmask.nn.dropout import Dropout
from unmask.nn.ids import check_batch, check_range
from unmask.nn.losses import linear_cross_entropy
from unmask.nn.pretrained import PretrainedModel
from unmask.nn.ragged import Layout

#: Of a directory's config.json.
MODEL_TYPE = "encoder-decoder"
#: How far the logits of several tokens fed at once may be from those of one at a time, relative to 1 + |logit|.
ADVANCE_TOLERANCE = 1e-4
_IDS = ("decoder_start_token_id", "eos_token_id", "pad_token_id")
_DECODER = {"is_decoder": True, "add_cross_attention": True}


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig:
    """The shapes of both halves, and the ids that decoding needs.

    Attributes:
        encoder, decoder: of one width.
        decoder_start_token_id: what every target begins with; eos_token_id: what ends it.

    Raises:
        UserError: halves of different widths.
    """

    encoder: ElectraConfig
    decoder: ElectraConfig
    decoder_start_token_id: int
    eos_token_id: int
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        if self.encoder.hidden_size != self.decoder.hidden_size:
            raise UserError(
                f"the encoder is {self.encoder.hidden_size} wide, the decoder {self.decoder.hidden_size}: "
                "only halves of one width are supported"
            )

    @property
    def vocab_size(self) -> int:
        """Of what is written."""
        return self.decoder.vocab_size

    @classmethod
    def from_hub(cls, values: Mapping[str, Any], where: str = "config.json") -> Self:
        """From the content of a Hub config.json.

        Raises:
            UserError: another family's config, or one that does not say how targets begin and end.
        """
        if values.get("model_type") != MODEL_TYPE:
            raise UserError(f"{where} is of model type {values.get('model_type')!r}, not {MODEL_TYPE}")
        halves = {}
        for half in ("encoder", "decoder"):
            own = values.get(half)
            if not isinstance(own, dict):
                raise UserError(f"{where} has no {half!r}: it is no encoder–decoder's")
            shape = {name: value for name, value in own.items() if half == "encoder" or name not in _DECODER}
            halves[half] = ElectraConfig.from_hub(shape, f"{where}, {half}")
        ids = {}
        for name in _IDS:
            value = values.get(name)
            value = values["decoder"].get(name) if value is None else value
            if type(value) is not int:
                raise UserError(f"{where}: {name} is {value!r}: put the id of the token there")
            ids[name] = value
        return cls(
            encoder=halves["encoder"],
            decoder=halves["decoder"],
            decoder_start_token_id=ids["decoder_start_token_id"],
            eos_token_id=ids["eos_token_id"],
            pad_token_id=ids["pad_token_id"],
        )

    def to_hub(self) -> dict[str, Any]:
        """What config.json holds, as Transformers reads it."""
        return {
            "model_type": MODEL_TYPE,
            "is_encoder_decoder": True,
            "encoder": self.encoder.to_hub(),
            "decoder": self.decoder.to_hub() | _DECODER,
            **{name: getattr(self, name) for name in _IDS},
        }


class CrossAttention(nn.Module):
    """norm(x + attention of x over the source)."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.attention_dropout = config.attention_probs_dropout_prob

    def split(self, x: Tensor) -> Tensor:
        """(total, hidden_size) → (total, heads, head_width)."""
        return x.view(x.shape[0], self.heads, -1)

    def forward(self, x: Tensor, layout: Layout, source: Tensor, source_layout: Layout) -> Tensor:
        """(total, hidden_size) and (source_total, hidden_size) → (total, hidden_size)."""
        mixed = attention(
            self.split(self.query(x)),
            self.split(self.key(source)),
            self.split(self.value(source)),
            layout,
            source_layout,
            scale=(x.shape[-1] // self.heads) ** -0.5,
            dropout=self.attention_dropout if self.training else 0.0,
        )
        return self.add_attention(x, mixed, layout.places)

    def add_attention(self, x: Tensor, mixed: Tensor, places: Tensor | None = None) -> Tensor:
        """norm(x + what attention has mixed, (total, heads, head_width)); places: what dropout depends on."""
        return self.norm(x + self.dropout(self.output(mixed.flatten(1)), places))


class DecoderLayer(nn.Module):
    """ELECTRA's layer, looking back only, with attention over the source inside."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.own = ElectraLayer(config)
        self.cross = CrossAttention(config)

    def forward(self, x: Tensor, layout: Layout, source: Tensor, source_layout: Layout) -> Tensor:
        """(total, hidden_size) and (source_total, hidden_size) → (total, hidden_size)."""
        x = self.own.add_attention(x, self.own.mixed(x, layout, causal=True), layout.places)
        return self.own.feed_forward(self.cross(x, layout, source, source_layout), layout.places)


class ElectraDecoder(nn.Module):
    """ELECTRA's encoder with `DecoderLayer`s."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = ElectraEmbeddings(config)
        self.projection = embedding_projection(config)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))

    def embed(self, ids: Tensor, layout: Layout, positions: Tensor) -> Tensor:
        """(total,) each → (total, hidden_size)."""
        x: Tensor = self.embeddings(ids, layout, positions, None)
        return x if self.projection is None else self.projection(x)

    def forward(self, ids: Tensor, layout: Layout, source: Tensor, source_layout: Layout) -> Tensor:
        """A packed stream of targets, each beginning with the start token → (total, hidden_size).

        Raises:
            UserError: a target longer than `max_position_embeddings`.
        """
        check_length(layout.longest, self.config.max_position_embeddings)
        x = self.embed(ids, layout, layout.positions)
        for layer in self.layers:
            x = layer(x, layout, source, source_layout)
        return x

    @torch.no_grad()
    def start_from(self, encoder: ElectraEncoder) -> None:
        """Take an encoder's weights, all but cross-attention's, which it lacks."""
        state = {
            re.sub(r"^layers\.(\d+)\.", r"layers.\1.own.", name): tensor
            for name, tensor in encoder.state_dict().items()
        }
        self.load_state_dict(state, strict=False)


class EncoderDecoderModel(PretrainedModel):
    """An ELECTRA that reads, and one that writes from left to right."""

    config_class = EncoderDecoderConfig
    architecture = "EncoderDecoderModel"
    config: EncoderDecoderConfig
    generation_defaults: dict[str, Any]
    _cross: ClassVar[dict[str, str]] = {
        "query": "self.query",
        "key": "self.key",
        "value": "self.value",
        "output": "output.dense",
        "norm": "output.LayerNorm",
    }

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.generation_defaults = {}
        self.encoder = ElectraEncoder(config.encoder)
        self.decoder = ElectraDecoder(config.decoder)
        self.head = GeneratorHead(config.decoder)
        self.initialise()

    @classmethod
    def from_electra(cls, directory: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> Self:
        """A model to be trained: both halves begin with the weights of one ELECTRA encoder.

        Of a pair that is the discriminator's. The output layer comes from the masked LM, of a pair the generator,
        where that has the encoder's sizes; else it is drawn from torch's global generator, as cross-attention is.

        Raises:
            UserError: nothing found, a damaged file, no tokenizer.
        """
        found = hub.find_model(directory)
        place = next((found / half for half in (DISCRIMINATOR, GENERATOR) if (found / half).is_dir()), found)
        encoder = ElectraModel.from_pretrained(place, dtype="float32").encoder
        tokenizer = ElectraTokenizer.from_pretrained(found)
        config = EncoderDecoderConfig(
            encoder=encoder.config,
            decoder=encoder.config,
            decoder_start_token_id=tokenizer.cls_token_id,
            eos_token_id=tokenizer.sep_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        model = cls(config)
        model.encoder.load_state_dict(encoder.state_dict())
        model.decoder.start_from(encoder)
        writer = found / GENERATOR if (found / GENERATOR).is_dir() else found
        if ElectraForMaskedLM.architecture in (hub.read_json(writer / hub.CONFIG).get("architectures") or ()):
            head = ElectraForMaskedLM.from_pretrained(writer, dtype="float32").generator_head
            mine, others = model.head.state_dict(), head.state_dict()
            if {name: t.shape for name, t in mine.items()} == {name: t.shape for name, t in others.items()}:
                model.head.load_state_dict(others)
        return model.to(device)

    @classmethod
    def hub_name(cls, name: str) -> str:
        half, _, rest = name.partition(".")
        if half == "encoder":
            return "encoder." + checkpoint.hub_name(name).removeprefix("electra.")
        if half == "head":
            return "decoder." + checkpoint.hub_name(f"generator_head.{rest}")
        cross = re.fullmatch(r"layers\.(\d+)\.cross\.(\w+)\.(\w+)", rest)
        if cross is not None:
            number, part, kind = cross.groups()
            return f"decoder.electra.encoder.layer.{number}.crossattention.{cls._cross[part]}.{kind}"
        return "decoder." + checkpoint.hub_name("encoder." + re.sub(r"^(layers\.\d+)\.own\.", r"\1.", rest))

    @classmethod
    def prepare(cls, config: EncoderDecoderConfig, weights: dict[str, Tensor]) -> EncoderDecoderConfig:
        """Each half's tensors in ELECTRA's form; the file decides whether the output matrix is tied."""
        halves: dict[str, dict[str, Tensor]] = {"encoder": {}, "decoder": {}}
        for name in list(weights):
            half, _, rest = name.partition(".")
            if half in halves:
                halves[half][rest] = weights.pop(name)
        ElectraBackbone.prepare(config.encoder, halves["encoder"])
        decoder = ElectraForMaskedLM.prepare(config.decoder, halves["decoder"])
        weights.update({f"encoder.{k.removeprefix('electra.')}": v for k, v in halves["encoder"].items()})
        weights.update({f"decoder.{k}": v for k, v in halves["decoder"].items()})
        return replace(config, decoder=decoder)

    def initialise(self) -> None:
        initialise(self.encoder, self.config.encoder.initializer_range, ("projection",))
        initialise(self.decoder, self.config.decoder.initializer_range, ("projection",))
        initialise(self.head, self.config.decoder.initializer_range, ())

    @property
    def output_weight(self) -> Tensor:
        """(vocab_size, embedding_size)."""
        own = self.head.output.weight
        return self.decoder.embeddings.token.weight if own is None else own

    def logits(self, states: Tensor) -> Tensor:
        """(n, hidden_size), the decoder's output → (n, vocab_size)."""
        return F.linear(self.head(states), self.output_weight, self.head.output.bias)

    def shift_right(self, targets: Tensor, layout: Layout) -> Tensor:
        """(total,) targets → what the decoder reads: the start token, and all of a target but its last."""
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
        source = self.encoder(inputs, input_layout)
        read = self.shift_right(targets, target_layout)
        hidden = self.head(self.decoder(read, target_layout, source, input_layout))
        return linear_cross_entropy(hidden, self.output_weight, targets, self.head.output.bias)

    def forward(
        self, input_ids: Rows, attention_mask: Tensor | None = None, *, labels: Tensor
    ) -> ElectraOutput:
        """Logits (batch, target_length, vocab_size) for given targets.

        Args:
            input_ids: (batch, source_length) int64, padded on either side, or a list of lists of ids.
            attention_mask: (batch, source_length), nonzero on tokens; None: everything is a token.
            labels: (batch, target_length) int64, -100 where nothing is to be predicted. The loss is the mean
                over the others.

        Raises:
            UserError: labels of another number of texts, ids outside of the vocabulary.
        """
        batch, source = self._encode(input_ids, attention_mask)
        check_batch("labels", labels)
        if labels.shape[0] != batch.packed.layout.batch:
            raise UserError(f"labels has {labels.shape[0]} rows, input_ids {batch.packed.layout.batch}")
        known = labels.masked_fill(labels == IGNORED_LABEL, self.config.pad_token_id)
        check_range("labels", known, self.config.vocab_size)
        layout = Layout.of([labels.shape[1]] * labels.shape[0], labels.device)
        read = self.shift_right(known.flatten(), layout)
        logits = self.logits(self.decoder(read, layout, source, batch.packed.layout))
        loss = F.cross_entropy(logits.float(), labels.flatten(), ignore_index=IGNORED_LABEL)
        return ElectraOutput(logits.view(*labels.shape, -1), loss)

    def _encode(self, input_ids: Rows, attention_mask: Tensor | None) -> tuple[Batch, Tensor]:
        batch = Batch.of(self.config.encoder, input_ids, attention_mask, None, self.device)
        packed = batch.packed
        return batch, self.encoder(packed.ids, packed.layout, None, packed.columns)

    @torch.inference_mode()
    def generate(
        self,
        input_ids: Rows,
        attention_mask: Tensor | None = None,
        *,
        decoder_prefix_ids: Tensor | Sequence[int] | Sequence[Sequence[int]] | None = None,
        constraint: Constraint | None = None,
        return_scores: bool = False,
        **options: Any,
    ) -> Tensor | GenerationOutput:
        """Write the target of each input: greedily, by beam search or by sampling.

        Args:
            input_ids: (batch, length) int64, padded on either side, or a list of lists of ids.
            attention_mask: (batch, length), nonzero on tokens; None: everything is a token.
            decoder_prefix_ids: what every target begins with, behind [CLS]: (n,) ids for all inputs or (batch, n).
            constraint: what may be written.
            return_scores: return a GenerationOutput, the sequences with their scores.
            options: any of `GenerationSettings` by name; what is not named is as generation_config.json says.
                Without any limit, as many tokens are written at most as there are positions.

        Returns:
            (batch · num_return_sequences, ≤ max_length) int64: rows begin with [CLS] and the prefix, finished rows
            are padded.

        Raises:
            UserError: an unknown option, options that exclude each other, a limit that leaves nothing to write or
                asks for more positions than there are, a token id outside of the vocabulary.
        """
        decoder, plan, sources = self._begin(
            input_ids, attention_mask, decoder_prefix_ids, constraint, return_scores, options
        )
        output = autoregressive.generate(decoder, plan, sources, tolerance=ADVANCE_TOLERANCE)
        return output if return_scores else output.sequences

    @torch.inference_mode()
    def stream(
        self,
        input_ids: Rows,
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
            input_ids, attention_mask, decoder_prefix_ids, constraint, True, options
        )
        autoregressive.check_streamable(plan)
        return autoregressive.stream(decoder, plan)

    def _begin(
        self,
        input_ids: Rows,
        attention_mask: Tensor | None,
        prefix: Any,
        constraint: Constraint | None,
        with_scores: bool,
        options: dict[str, Any],
    ) -> tuple[CachedDecoder, Plan, list[list[int]]]:
        """Encode, and be ready to decode: also the plan and the ids of each source."""
        settings = GenerationSettings.resolve(options, self.generation_defaults)
        config, positions = self.config, self.config.decoder.max_position_embeddings
        batch, source = self._encode(input_ids, attention_mask)
        packed = batch.packed
        prompt = autoregressive.prompt_of(
            prefix, inputs=packed.layout.batch, start_id=config.decoder_start_token_id, like=packed.ids
        )
        check_range("decoder_prefix_ids", prompt, config.vocab_size)
        plan = Plan(
            prompt=prompt,
            end_id=config.eos_token_id,
            pad_id=config.pad_token_id,
            limit=settings.token_limit(prompt.shape[1], fallback=max(1, positions - prompt.shape[1] + 1)),
            settings=settings,
            constraint=constraint,
            with_scores=with_scores,
        )
        # What is guessed ahead and taken back may stand beyond the last position.
        check_length(plan.prompt_length + plan.limit - 1, positions)
        decoder = CachedDecoder(self, source, packed.layout, plan.capacity)
        return decoder, plan, [ids.tolist() for ids in packed.ids.split(list(packed.layout.lengths))]

    def after_loading(self, directory: Path) -> None:
        """Take over generation_config.json."""
        path = directory / hub.GENERATION_CONFIG
        self.generation_defaults = hub.read_json(path) if path.is_file() else {}

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        super().save_pretrained(directory)
        ids = {name: getattr(self.config, name) for name in _IDS}
        hub.write_json(Path(directory) / hub.GENERATION_CONFIG, self.generation_defaults | ids)
