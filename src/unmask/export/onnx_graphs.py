"""What is traced to ONNX: the models of `plain.py` as modules from tensors to tensors, sizes left open.

T5 is two graphs. The encoder hands out what cross-attention needs, keys and values of every layer of the decoder,
so that the decoder's matrices on the source are multiplied once; the decoder takes any number of new tokens after a
past of any length, none included, and hands out the longer past. A T5 with a head is one graph: its decoder reads the
text itself, at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.electra import plain as electra_plain
from unmask.electra.heads import (
    ElectraForMultipleChoice,
    ElectraForQuestionAnswering,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
    ElectraModel,
)
from unmask.electra.model import ElectraBackbone, ElectraForMaskedLM, ElectraForPreTraining
from unmask.nn.relative_position import RelativePositionBias
from unmask.t5 import plain as t5_plain
from unmask.t5.heads import T5ForQuestionAnswering, T5ForSequenceClassification, T5ForTokenClassification
from unmask.t5.model import T5Backbone, T5EncoderModel, T5ForConditionalGeneration, T5Stack


@dataclass(frozen=True)
class Graph:
    """A module to trace.

    Attributes:
        name: of its file, without `.onnx`.
        module: takes and returns tensors alone.
        example: inputs by name, in order; sizes other than 1 that differ where they may differ.
        outputs: names, in order.
        axes: the open axes of each input and output: {axis: what its size is called}.
    """

    name: str
    module: nn.Module
    example: dict[str, Tensor]
    outputs: list[str]
    axes: dict[str, dict[int, str]] = field(default_factory=dict)


def pasts(layers: int) -> list[str]:
    """`key.0`, `value.0`, `key.1`, …: what names of caches end in."""
    return [f"{kind}.{number}" for number in range(layers) for kind in ("key", "value")]


def t5_graphs(model: T5ForConditionalGeneration) -> list[Graph]:
    """`encoder`: input_ids, attention_mask (batch, source) int64 → cross_key.N, cross_value.N (batch, heads, source,
    d_kv). `decoder`: input_ids (batch, target) int64, attention_mask of the source, past_key.N, past_value.N (batch,
    heads, past, d_kv) and the encoder's → logits (batch, target, vocab_size), present_key.N, present_value.N (batch,
    heads, past + target, d_kv).
    """
    config = model.config
    ends = pasts(config.decoder_layers)
    text = {0: "batch", 1: "source"}
    crossed = {f"cross_{end}": {0: "batch", 2: "source"} for end in ends}
    mask = torch.ones(2, 5, dtype=torch.int64)
    encoder = Graph(
        "encoder",
        _Encoder(model),
        {"input_ids": mask * 3, "attention_mask": mask},
        list(crossed),
        {"input_ids": text, "attention_mask": text} | crossed,
    )
    caches = [torch.zeros(2, config.num_heads, length, config.d_kv) for length in (4, 5) for _ in ends]
    names = [f"past_{end}" for end in ends] + list(crossed)
    decoder = Graph(
        "decoder",
        _Decoder(model),
        {"input_ids": mask[:, :3] * 3, "attention_mask": mask} | dict(zip(names, caches, strict=True)),
        ["logits", *(f"present_{end}" for end in ends)],
        {"input_ids": {0: "batch", 1: "target"}, "attention_mask": text, "logits": {0: "batch", 1: "target"}}
        | {f"past_{end}": {0: "batch", 2: "past"} for end in ends}
        | {f"present_{end}": {0: "batch", 2: "present"} for end in ends}
        | crossed,
    )
    return [encoder, decoder]


class _Encoder(nn.Module):
    def __init__(self, model: T5ForConditionalGeneration) -> None:
        super().__init__()
        self.model, self.biases = model, _StackBiases(model.encoder)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        model = self.model
        x = F.embedding(input_ids, model.embedding.weight)
        places = torch.arange(input_ids.shape[1])
        hidden = t5_plain.padding_bias(attention_mask, x)
        assert hidden is not None
        layer: Any
        for layer, bias in zip(model.encoder.layers, self.biases(places, places), strict=True):
            part, normed = layer.attention, t5_plain.rms_norm(layer.attention_norm, x)
            query, key, value = (
                t5_plain.heads_of(part, m(normed)) for m in (part.query, part.key, part.value)
            )
            x = x + t5_plain.mix(part, t5_plain.attention_weights(query, key, bias + hidden), value)
            x = x + t5_plain.feed_forward(layer.feed_forward, t5_plain.rms_norm(layer.feed_forward_norm, x))
        source = t5_plain.rms_norm(model.encoder.final_norm, x)
        made: list[Tensor] = []
        for layer in model.decoder.layers:
            part = layer.cross_attention
            made += [t5_plain.heads_of(part, matrix(source)) for matrix in (part.key, part.value)]
        return tuple(made)


class _Decoder(nn.Module):
    def __init__(self, model: T5ForConditionalGeneration) -> None:
        super().__init__()
        self.model, self.biases = model, _StackBiases(model.decoder)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """caches: keys and values of the past, layer by layer, then of the source."""
        model, half = self.model, len(caches) // 2
        past, crossed = caches[:half], caches[half:]
        x = F.embedding(input_ids, model.embedding.weight)
        first, last = past[0].shape[2], past[0].shape[2] + input_ids.shape[1]
        queries, keys = torch.arange(first, last), torch.arange(last)
        future = t5_plain.causal_bias(queries, keys)
        hidden = t5_plain.padding_bias(attention_mask, x)
        present: list[Tensor] = []
        layer: Any
        for number, (layer, bias) in enumerate(
            zip(model.decoder.layers, self.biases(queries, keys), strict=True)
        ):
            part, normed = layer.attention, t5_plain.rms_norm(layer.attention_norm, x)
            query, key, value = (
                t5_plain.heads_of(part, m(normed)) for m in (part.query, part.key, part.value)
            )
            key = torch.cat([past[2 * number], key], 2)
            value = torch.cat([past[2 * number + 1], value], 2)
            present += [key, value]
            x = x + t5_plain.mix(part, t5_plain.attention_weights(query, key, bias + future), value)
            part = layer.cross_attention
            query = t5_plain.heads_of(part, part.query(t5_plain.rms_norm(layer.cross_norm, x)))
            weights = t5_plain.attention_weights(query, crossed[2 * number], hidden)
            x = x + t5_plain.mix(part, weights, crossed[2 * number + 1])
            x = x + t5_plain.feed_forward(layer.feed_forward, t5_plain.rms_norm(layer.feed_forward_norm, x))
        x = model.scaled(t5_plain.rms_norm(model.decoder.final_norm, x))
        return (F.linear(x, model.output_weight), *present)


class _StackBiases(nn.Module):
    """A stack's position biases, looked up by the distance.

    Buckets are computed here, not in the graph: another library's logarithm may put a distance that lies on a
    bucket's edge into the bucket beside.
    """

    def __init__(self, stack: T5Stack) -> None:
        super().__init__()
        self.layers = len(stack.layers)
        part: Any = stack.position_biases[0]
        # From the largest distance on all share a bucket; exact buckets may reach further in odd configs.
        self.reach = max(part.max_distance, part.table.num_embeddings)
        for number, bias in enumerate(stack.position_biases):
            assert isinstance(bias, RelativePositionBias)
            places = torch.arange(-self.reach, self.reach + 1)
            self.register_buffer(f"table_{number}", bias.between(torch.zeros(1).long(), places)[:, 0].clone())

    def forward(self, queries: Tensor, keys: Tensor) -> list[Tensor]:
        """(queries,) and (keys,) → (1, heads, queries, keys) of each layer."""
        distance = (keys[None, :] - queries[:, None]).clamp(-self.reach, self.reach) + self.reach
        made = [table[:, distance][None] for table in self.buffers()]
        return made if len(made) == self.layers else made * self.layers


def _last_end(model: T5ForSequenceClassification, ids: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
    places = torch.arange(1, ids.shape[1] + 1)
    ends = (places * (ids == model.config.eos_token_id)).amax(1) - 1
    read = hidden.gather(1, ends[:, None, None].expand(-1, 1, hidden.shape[2])).squeeze(1)
    head = model.sequence_head
    return (head.output(torch.tanh(head.dense(read))),)


#: T5s that do not write: the names of what their graph gives, and how that is made of the ids and the hidden states.
_T5_HEADS: dict[type[T5Backbone], tuple[list[str], Callable[[Any, Tensor, Tensor], tuple[Tensor, ...]]]] = {
    T5EncoderModel: (["last_hidden_state"], lambda _, __, hidden: (hidden,)),
    T5ForSequenceClassification: (["logits"], _last_end),
    T5ForTokenClassification: (["logits"], lambda model, _, hidden: (model.token_head(hidden),)),
    T5ForQuestionAnswering: (
        ["start_logits", "end_logits"],
        lambda model, _, hidden: model.span_head(hidden).unbind(-1),
    ),
}
#: By the end of the Hub's name, which begins with the type of T5.
T5_HEADS = {model.architecture.removeprefix("T5"): model for model in _T5_HEADS}


def t5_head_graph(model: T5Backbone) -> Graph:
    """`model`: input_ids, attention_mask (batch, length) int64, padded on the right → what its head makes of them.

    Of a classifier of texts, each of which has a `</s>`, logits (batch, labels); of tokens (batch, length, labels); a
    finder of answers start_logits and end_logits (batch, length); an encoder last_hidden_state (batch, length,
    d_model). What comes out on padding means nothing.
    """
    outputs, head = _T5_HEADS[type(model)]
    text = {0: "batch", 1: "length"}
    mask = torch.ones(2, 5, dtype=torch.int64)
    made = {0: "batch"} if isinstance(model, T5ForSequenceClassification) else text
    axes = {"input_ids": text, "attention_mask": text} | dict.fromkeys(outputs, made)
    example = {"input_ids": mask * model.config.eos_token_id, "attention_mask": mask}
    return Graph("model", _T5WithHead(model, head), example, outputs, axes)


class _T5WithHead(nn.Module):
    def __init__(self, model: T5Backbone, head: Callable[[Any, Tensor, Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.model, self.head = model, head
        self.encoder_biases = _StackBiases(model.encoder)
        self.decoder_biases = _StackBiases(model.decoder) if hasattr(model, "decoder") else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        model, places = self.model, torch.arange(input_ids.shape[1])
        biases = [bias[0] for bias in self.encoder_biases(places, places)]
        words = F.embedding(input_ids, model.embedding.weight)
        hidden = t5_plain.encode(model, words, attention_mask, biases=biases)
        if self.decoder_biases is not None:
            start = torch.full_like(input_ids[:, :1], model.config.decoder_start_token_id)
            shifted = F.embedding(torch.cat([start, input_ids[:, :-1]], 1), model.embedding.weight)
            biases = [bias[0] for bias in self.decoder_biases(places, places)]
            hidden = t5_plain.decode_states(model, shifted, hidden, attention_mask, biases=biases)
        return self.head(model, input_ids, hidden)


def _logits_of_tokens(model: ElectraForPreTraining, hidden: Tensor) -> tuple[Tensor, ...]:
    return (electra_plain.discriminator_logits(model.discriminator_head, hidden, model.config.hidden_act),)


def _logits_of_vocabulary(model: ElectraForMaskedLM, hidden: Tensor) -> tuple[Tensor, ...]:
    return (model.logits(electra_plain.generator_hidden(model.generator_head, hidden)),)


def _logits_of_choices(model: ElectraForMultipleChoice, hidden: Tensor) -> tuple[Tensor, ...]:
    head = model.choice_head
    return (head.output(F.gelu(head.dense(hidden[:, 0]))).squeeze(-1),)


#: Architecture → the model, the names of what its graph gives, and how that is made of the hidden states.
_HEADS: dict[type[ElectraBackbone], tuple[list[str], Callable[[Any, Tensor], tuple[Tensor, ...]]]] = {
    ElectraModel: (["last_hidden_state"], lambda _, hidden: (hidden,)),
    ElectraForPreTraining: (["logits"], _logits_of_tokens),
    ElectraForMaskedLM: (["logits"], _logits_of_vocabulary),
    ElectraForSequenceClassification: (
        ["logits"],
        lambda model, hidden: (electra_plain.sequence_logits(model.sequence_head, hidden[:, 0]),),
    ),
    ElectraForTokenClassification: (["logits"], lambda model, hidden: (model.token_head.linear(hidden),)),
    ElectraForQuestionAnswering: (
        ["start_logits", "end_logits"],
        lambda model, hidden: model.span_head(hidden).unbind(-1),
    ),
    ElectraForMultipleChoice: (["logits"], _logits_of_choices),
}


def electra_graph(model: ElectraBackbone) -> Graph:
    """`model`: input_ids, attention_mask, token_type_ids (batch, length) int64 → what its head makes of them.

    Of a discriminator logits (batch, length), of a generator (batch, length, vocab_size), of a classifier of tokens
    (batch, length, labels), of texts (batch, labels), of choices (batch,), one row a choice; a finder of answers
    start_logits and end_logits (batch, length); an encoder last_hidden_state (batch, length, hidden_size). What
    comes out on padding means nothing.
    """
    outputs, head = _HEADS[type(model)]
    ids = torch.ones(2, 5, dtype=torch.int64)
    text = {0: "batch", 1: "length"}
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    of_texts = isinstance(model, ElectraForSequenceClassification | ElectraForMultipleChoice)
    made = {0: "batch"} if of_texts else text
    example = {name: ids * (name != "token_type_ids") for name in inputs}
    axes = dict.fromkeys(inputs, text) | dict.fromkeys(outputs, made)
    return Graph("model", _Electra(model, head), example, outputs, axes)


class _Electra(nn.Module):
    def __init__(self, model: ElectraBackbone, head: Callable[[Any, Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.model, self.head = model, head

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> tuple[Tensor, ...]:
        encoder = self.model.encoder
        words = F.embedding(input_ids, encoder.embeddings.token.weight)
        return self.head(self.model, electra_plain.encode(encoder, words, attention_mask, token_type_ids))
