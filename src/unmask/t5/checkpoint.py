"""T5's weights: names inside ↔ names on the Hub, as data."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# (inside, on the Hub); {i} stands for a layer number. Longer forms of the same thing come first.
_ENCODER = [
    ("attention_norm", "layer.0.layer_norm"),
    ("attention.query", "layer.0.SelfAttention.q"),
    ("attention.key", "layer.0.SelfAttention.k"),
    ("attention.value", "layer.0.SelfAttention.v"),
    ("attention.output", "layer.0.SelfAttention.o"),
    ("feed_forward_norm", "layer.1.layer_norm"),
    ("feed_forward.gate", "layer.1.DenseReluDense.wi_0"),
    ("feed_forward.up", "layer.1.DenseReluDense.{up}"),
    ("feed_forward.down", "layer.1.DenseReluDense.wo"),
]
_DECODER = [
    *_ENCODER[:5],
    ("cross_norm", "layer.1.layer_norm"),
    ("cross_attention.query", "layer.1.EncDecAttention.q"),
    ("cross_attention.key", "layer.1.EncDecAttention.k"),
    ("cross_attention.value", "layer.1.EncDecAttention.v"),
    ("cross_attention.output", "layer.1.EncDecAttention.o"),
    *((inside, on_hub.replace("layer.1", "layer.2")) for inside, on_hub in _ENCODER[5:]),
]
_TOP = {
    "embedding": "shared",
    "output": "lm_head",
    "encoder.final_norm": "encoder.final_layer_norm",
    "decoder.final_norm": "decoder.final_layer_norm",
}
_HEADS = {
    "sequence_head.dense": "classification_head.dense",
    "sequence_head.output": "classification_head.out_proj",
    "token_head": "classifier",
    "span_head": "qa_outputs",
}
_BIAS = "layer.0.SelfAttention.relative_attention_bias"
_LAYER = {"encoder": dict(_ENCODER), "decoder": dict(_DECODER)}

#: Copies of `shared.weight` that some writers leave in a file.
EMBEDDING_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
#: Written by early Transformers, never used: cross-attention has no position bias.
UNUSED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)


#: Transformers' classification models keep all but their head under this name.
BACKBONE = "transformer."


def hub_name(name: str, *, gated: bool, backbone: str = "") -> str:
    """The name on the Hub of a parameter, such as `encoder.layers.0.attention.query.weight`.

    Args:
        backbone: what stands before the names of all but a head.
    """
    stem, kind = name.rsplit(".", 1)
    if stem in _HEADS:
        return f"{_HEADS[stem]}.{kind}"
    if stem in _TOP:
        return f"{backbone}{_TOP[stem]}.{kind}"
    match = re.fullmatch(r"(encoder|decoder)\.(layers|position_biases)\.(\d+)\.(.+)", stem)
    if match is None:
        raise KeyError(name)
    stack, what, layer, part = match.groups()
    on_hub = _LAYER[stack][part].format(up="wi_1" if gated else "wi") if what == "layers" else _BIAS
    return f"{backbone}{stack}.block.{layer}.{on_hub}.{kind}"


def tidy(weights: dict[str, Tensor], backbone: str) -> None:
    """Bring a file's names to one form, in place: the wanted backbone, no copies, nothing unused."""
    for name in list(weights):
        stem = name.removeprefix(BACKBONE)
        if stem.startswith(("shared.", "encoder.", "decoder.")):
            weights[backbone + stem] = weights.pop(name)
    for copy in EMBEDDING_COPIES:
        tensor = weights.pop(backbone + copy, None)
        if tensor is not None:
            weights.setdefault(f"{backbone}shared.weight", tensor)
    for unused in UNUSED:
        weights.pop(backbone + unused, None)
