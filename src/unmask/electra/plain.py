"""ELECTRA's encoder in PyTorch's own operations on rectangles, every attention weight and layer in view.

The same weights and numbers as `unmask.electra.model`, which runs on packed streams in kernels that show nothing of
what is inside and cannot be traced. Explanations look into this one, exports trace it; tests hold it to the other.
Inference alone: no dropout; float32 or float64.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.electra.config import ACTIVATIONS as HUB_NAMES
from unmask.electra.heads import DenseHead, LinearHead
from unmask.electra.model import DiscriminatorHead, ElectraEncoder, ElectraLayer, GeneratorHead
from unmask.nn.linear import ACTIVATIONS


@dataclass
class EncoderTrace:
    """What happened in an encoder: one entry a layer.

    Attributes:
        attention: (batch, heads, length, length), rows that sum to 1.
        states: (batch, length, hidden_size) after each layer.
    """

    attention: list[Tensor] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)


def encode(
    encoder: ElectraEncoder,
    words: Tensor,
    mask: Tensor | None = None,
    types: Tensor | None = None,
    trace: EncoderTrace | None = None,
    gates: Tensor | None = None,
) -> Tensor:
    """Embeddings of the tokens alone → hidden states; positions and segments are added here.

    Args:
        words: (batch, length, embedding_size), rows of `encoder.embeddings.token`.
        mask: (batch, length), nonzero on tokens; None: everything is one. What comes out on padding means nothing.
        types: (batch, length) int64 segments; None: all of the first.
        trace: takes what happened.
        gates: (batch, layers, heads) that heads' outputs are multiplied by: 1 leaves one, 0 removes it.

    Returns:
        (batch, length, hidden_size).
    """
    table = encoder.embeddings
    segment = table.token_type.weight[0] if types is None else table.token_type(types)
    x = table.norm(words + segment + table.position(torch.arange(words.shape[1])))
    if encoder.projection is not None:
        x = encoder.projection(x)
    bias = None
    if mask is not None:
        hidden = (mask == 0)[:, None, None, :]
        bias = torch.zeros(hidden.shape, dtype=x.dtype).masked_fill(hidden, torch.finfo(x.dtype).min)
    act = HUB_NAMES[encoder.config.hidden_act]
    for number, layer in enumerate(encoder.layers):
        assert isinstance(layer, ElectraLayer)
        x = _layer(layer, x, bias, act, trace, None if gates is None else gates[:, number])
    return x


def _layer(
    layer: ElectraLayer,
    x: Tensor,
    bias: Tensor | None,
    act: str,
    trace: EncoderTrace | None,
    gates: Tensor | None,
) -> Tensor:
    query, key, value = (
        part(x).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        for part in (layer.query, layer.key, layer.value)
    )
    scores = (query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5
    weights = torch.softmax(scores if bias is None else scores + bias, -1)
    mixed = weights @ value
    if gates is not None:
        mixed = mixed * gates[:, :, None, None]
    x = layer.attention_norm(x + layer.attention_output(mixed.transpose(1, 2).flatten(2)))
    x = layer.feed_forward_norm(x + layer.down(ACTIVATIONS[act](layer.up(x))))
    if trace is not None:
        trace.attention.append(weights)
        trace.states.append(x)
    return x


def discriminator_logits(head: DiscriminatorHead, x: Tensor, act: str) -> Tensor:
    """(…, hidden_size) → (…): above 0 means "replaced"; act: the config's hidden_act."""
    return head.output(ACTIVATIONS[HUB_NAMES[act]](head.dense(x))).squeeze(-1)


def generator_hidden(head: GeneratorHead, x: Tensor) -> Tensor:
    """(…, hidden_size) → (…, embedding_size)."""
    return head.norm(F.gelu(head.dense(x)))


def sequence_logits(head: DenseHead | LinearHead, x: Tensor) -> Tensor:
    """(…, hidden_size) → (…, labels)."""
    if isinstance(head, LinearHead):
        return head.linear(x)
    return head.output(F.gelu(head.dense(x)))
