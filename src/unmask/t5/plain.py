"""T5 in PyTorch's own operations on rectangles, every attention weight and layer in view.

The same weights and numbers as `unmask.t5.model`, which runs on packed streams in kernels that show nothing of what
is inside and cannot be traced. Explanations look into this one, exports trace it; tests hold it to the other.
Inference alone: no dropout; float32 or float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unmask.nn.linear import ACTIVATIONS
from unmask.nn.norm import RMSNorm
from unmask.t5.model import T5Attention, T5Backbone, T5FeedForward, T5ForConditionalGeneration, T5Stack


@dataclass
class StackTrace:
    """What happened in a stack: one entry a layer.

    Attributes:
        attention: (batch, heads, queries, keys), rows that sum to 1.
        cross_attention: (batch, heads, queries, source keys); empty in an encoder.
        states: (batch, length, d_model), the residual stream after each layer.
    """

    attention: list[Tensor] = field(default_factory=list)
    cross_attention: list[Tensor] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Gates:
    """What each head's output is multiplied by, (batch, layers, heads) each: 1 leaves it, 0 removes it."""

    encoder: Tensor
    decoder: Tensor
    cross: Tensor


def encode(
    model: T5Backbone,
    embedded: Tensor,
    mask: Tensor | None = None,
    trace: StackTrace | None = None,
    gates: Tensor | None = None,
    biases: Sequence[Tensor] | None = None,
) -> Tensor:
    """(batch, length, d_model) embeddings → (batch, length, d_model) hidden states.

    Args:
        mask: (batch, length), nonzero on tokens; None: everything is one. What comes out on padding means nothing.
        trace: takes what happened.
        gates: (batch, layers, heads), see `Gates`.
        biases: of each layer, (heads, length, length); None: computed here.
    """
    stack, x = model.encoder, embedded
    if biases is None:
        biases = stack_biases(stack, torch.arange(x.shape[1]), torch.arange(x.shape[1]))
    hidden_keys = padding_bias(mask, x)
    for number, layer in enumerate(stack.layers):
        bias = biases[number][None] if hidden_keys is None else biases[number][None] + hidden_keys
        x = x + _self_attention(layer, x, bias, trace, None if gates is None else gates[:, number])
        x = _feed_forward_and_record(layer, x, trace)
    return rms_norm(stack.final_norm, x)


def decode(
    model: T5ForConditionalGeneration,
    embedded: Tensor,
    source: Tensor,
    source_mask: Tensor | None = None,
    trace: StackTrace | None = None,
    gates: Gates | None = None,
) -> Tensor:
    """Embeddings of the written prefix, start token first, → what the output matrix takes.

    Args:
        embedded: (batch, length, d_model).
        source: (batch, source_length, d_model) from `encode`; source_mask as its mask.

    Returns:
        (batch, length, d_model), scaled as `T5ForConditionalGeneration.scaled` does.
    """
    return model.scaled(decode_states(model, embedded, source, source_mask, trace, gates))


def decode_states(
    model: T5Backbone,
    embedded: Tensor,
    source: Tensor,
    source_mask: Tensor | None = None,
    trace: StackTrace | None = None,
    gates: Gates | None = None,
    biases: Sequence[Tensor] | None = None,
) -> Tensor:
    """The decoder's hidden states; see `decode`, which scales them, and `encode`."""
    stack, x = model.decoder, embedded
    layer: Any
    places = torch.arange(x.shape[1])
    future = causal_bias(places, places)
    if biases is None:
        biases = stack_biases(stack, places, places)
    hidden_keys = padding_bias(source_mask, x)
    for number, layer in enumerate(stack.layers):
        open_heads = None if gates is None else gates.decoder[:, number]
        x = x + _self_attention(layer, x, (biases[number] + future)[None], trace, open_heads)
        part = layer.cross_attention
        weights = attention_weights(
            heads_of(part, part.query(rms_norm(layer.cross_norm, x))),
            heads_of(part, part.key(source)),
            hidden_keys,
        )
        if trace is not None:
            trace.cross_attention.append(weights)
        open_heads = None if gates is None else gates.cross[:, number]
        x = x + mix(part, weights, heads_of(part, part.value(source)), open_heads)
        x = _feed_forward_and_record(layer, x, trace)
    return rms_norm(stack.final_norm, x)


def _self_attention(
    layer: Any, x: Tensor, bias: Tensor, trace: StackTrace | None, gates: Tensor | None
) -> Tensor:
    part, normed = layer.attention, rms_norm(layer.attention_norm, x)
    weights = attention_weights(heads_of(part, part.query(normed)), heads_of(part, part.key(normed)), bias)
    if trace is not None:
        trace.attention.append(weights)
    return mix(part, weights, heads_of(part, part.value(normed)), gates)


def _feed_forward_and_record(layer: Any, x: Tensor, trace: StackTrace | None) -> Tensor:
    x = x + feed_forward(layer.feed_forward, rms_norm(layer.feed_forward_norm, x))
    if trace is not None:
        trace.states.append(x)
    return x


def heads_of(part: T5Attention, x: Tensor) -> Tensor:
    """(batch, length, heads · d_kv) → (batch, heads, length, d_kv)."""
    return x.unflatten(-1, (part.heads, -1)).transpose(1, 2)


def attention_weights(query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor:
    """(batch, heads, queries, d_kv) and (batch, heads, keys, d_kv) → (batch, heads, queries, keys)."""
    scores = query @ key.transpose(-1, -2)
    return torch.softmax(scores if bias is None else scores + bias, -1)


def mix(part: T5Attention, weights: Tensor, value: Tensor, gates: Tensor | None = None) -> Tensor:
    """Values under their weights, through the output matrix; gates: (batch, heads)."""
    mixed = weights @ value
    if gates is not None:
        mixed = mixed * gates[:, :, None, None]
    return part.output(mixed.transpose(1, 2).flatten(2))


def feed_forward(part: T5FeedForward, x: Tensor) -> Tensor:
    act = ACTIVATIONS[part.activation]
    inner = act(part.up(x)) if part.gate is None else act(part.gate(x)) * part.up(x)
    return part.down(inner)


def rms_norm(norm: RMSNorm, x: Tensor) -> Tensor:
    return norm.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.eps))


def stack_biases(stack: T5Stack, queries: Tensor, keys: Tensor) -> list[Tensor]:
    """Each layer's (heads, queries, keys) for positions (queries,) and (keys,)."""
    made = [bias.between(queries, keys) for bias in stack.position_biases]  # type: ignore[operator]
    return made if len(made) == len(stack.layers) else made * len(stack.layers)


def causal_bias(queries: Tensor, keys: Tensor) -> Tensor:
    """(queries, keys): 0 where a query at its position may look, -inf after it."""
    ahead = keys[None, :] > queries[:, None]
    return torch.zeros(ahead.shape).masked_fill(ahead, float("-inf"))


def padding_bias(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """(batch, 1, 1, length): 0 on tokens, the type's lowest number on padding."""
    if mask is None:
        return None
    hidden = (mask == 0)[:, None, None, :]
    return torch.zeros(hidden.shape, dtype=like.dtype).masked_fill(hidden, torch.finfo(like.dtype).min)
