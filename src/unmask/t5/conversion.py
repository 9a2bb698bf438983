"""T5X and Flax checkpoints into T5: names there → names inside, as data, and sizes read off the arrays.

T5X names: google-research/t5x `examples/t5/network.py`; with scanned layers (umT5) every array of a layer has the
layers as its second axis and stands under `encoder/encoder` (hf `convert_umt5_checkpoint_to_pytorch.py`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from unmask import hub
from unmask.errors import UserError
from unmask.t5 import checkpoint
from unmask.t5.byte_tokenizer import load_tokenizer
from unmask.t5.config import T5Config
from unmask.t5.flax_files import read_parameters
from unmask.t5.model import T5ForConditionalGeneration

FLAX_WEIGHTS = "flax_model.msgpack"
T5X_FILE = "checkpoint"

_TOP = {
    "token_embedder/embedding": "embedding",
    "decoder/logits_dense/kernel": "output",
    "encoder/encoder_norm/scale": "encoder.final_norm",
    "decoder/decoder_norm/scale": "decoder.final_norm",
}
_MATRICES = {"query": "query", "key": "key", "value": "value", "out": "output"}
_LAYER = {
    "pre_attention_layer_norm/scale": "attention_norm",
    "pre_self_attention_layer_norm/scale": "attention_norm",
    "pre_cross_attention_layer_norm/scale": "cross_norm",
    "pre_mlp_layer_norm/scale": "feed_forward_norm",
    "mlp/wi/kernel": "feed_forward.up",
    "mlp/wi_0/kernel": "feed_forward.gate",
    "mlp/wi_1/kernel": "feed_forward.up",
    "mlp/wo/kernel": "feed_forward.down",
    **{
        f"{theirs}/{matrix}/kernel": f"{ours}.{name}"
        for theirs, ours in {
            "attention": "attention",
            "self_attention": "attention",
            "encoder_decoder_attention": "cross_attention",
        }.items()
        for matrix, name in _MATRICES.items()
    },
}


def from_flax(path: str | os.PathLike[str], **settings: Any) -> T5ForConditionalGeneration:
    """A T5 from a checkpoint of T5X or of Transformers' Flax models; ready for inference.

    Args:
        path: a T5X checkpoint (the directory `checkpoint_N`, or the file in it, plain or gzipped), or a model
            directory with `config.json` and `flax_model.msgpack`.
        settings: fields of the config to set instead of what the arrays say, such as
            `feed_forward_proj="gated-silu"` for UL2: T5X keeps the activation in another file.

    Raises:
        UserError: nothing readable there, arrays that T5 does not have or that are missing, an unknown setting.
    """
    source = Path(path).expanduser()
    if (source / FLAX_WEIGHTS).is_file():
        where = str(source / FLAX_WEIGHTS)
        config = T5Config.from_hub(hub.read_json(source / hub.CONFIG), str(source / hub.CONFIG))
        weights = _flax_names(read_parameters(source / FLAX_WEIGHTS))
    else:
        file = source / T5X_FILE if source.is_dir() else source
        if not file.is_file():
            raise UserError(
                f"no checkpoint at {source}: looked for the file, {T5X_FILE} and {FLAX_WEIGHTS} in it"
            )
        where = str(file)
        parameters = _separate_layers(read_parameters(file))
        config = _config(parameters, where)
        weights = _t5x_names(parameters, where)
    weights = {name: tensor.float().contiguous() for name, tensor in weights.items()}
    return T5ForConditionalGeneration.from_weights(config, weights, where, **settings).eval()


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    tokenizer: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> None:
    """Write a T5X or Flax checkpoint as a model directory, whole or not at all.

    Args:
        source, settings: see `from_flax`.
        tokenizer: a model directory or Hub name whose T5 tokenizer goes along.
    """
    model = from_flax(source, **settings)
    kept = None if tokenizer is None else load_tokenizer(tokenizer)
    with hub.atomic_directory(Path(out)) as directory:
        model.save_pretrained(directory)
        if kept is not None:
            kept.save_pretrained(directory)


def _flax_names(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Transformers' Flax names are its PyTorch ones but for the last part; kernels are transposed."""
    weights = {}
    for name, tensor in parameters.items():
        stem, kind = name.rsplit("/", 1)
        weights[f"{stem.replace('/', '.')}.weight"] = tensor.t() if kind == "kernel" else tensor
    return weights


def _separate_layers(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scanned layers one by one, and matrices for heads flat: (d_model, heads · d_kv)."""
    separate: dict[str, Tensor] = {}
    for name, tensor in parameters.items():
        stacked = re.fullmatch(r"(encoder|decoder)/\1/(.+)", name)
        if stacked is None:
            separate[name] = tensor
            continue
        for layer, part in enumerate(tensor.unbind(1)):
            separate[f"{stacked[1]}/layers_{layer}/{stacked[2]}"] = part
    return {name: _flat(name, tensor) for name, tensor in separate.items()}


def _flat(name: str, tensor: Tensor) -> Tensor:
    if tensor.dim() < 3:
        return tensor
    return tensor.flatten(0, 1) if name.endswith("out/kernel") else tensor.flatten(1)


def _config(parameters: Mapping[str, Tensor], where: str) -> T5Config:
    """The sizes, from the arrays' shapes: a position table says how many heads there are."""

    def shape(name: str) -> tuple[int, ...]:
        if name not in parameters:
            raise UserError(f"{where} lacks the array {name!r}: it is no T5 by T5X")
        return tuple(parameters[name].shape)

    per_layer = "encoder/layers_0/relpos_bias/rel_embedding" in parameters
    heads, buckets = shape(f"encoder/{'layers_0/' if per_layer else ''}relpos_bias/rel_embedding")
    vocab_size, d_model = shape("token_embedder/embedding")
    gated = "encoder/layers_0/mlp/wi_0/kernel" in parameters
    return T5Config(
        model_type="umt5" if per_layer else "t5",
        vocab_size=vocab_size,
        d_model=d_model,
        d_kv=shape("encoder/layers_0/attention/query/kernel")[1] // heads,
        d_ff=shape("encoder/layers_0/mlp/wo/kernel")[0],
        num_layers=_depth(parameters, "encoder"),
        num_decoder_layers=_depth(parameters, "decoder"),
        num_heads=heads,
        relative_attention_num_buckets=buckets,
        feed_forward_proj="gated-gelu" if gated else "relu",
        tie_word_embeddings="decoder/logits_dense/kernel" not in parameters,
    )


def _depth(parameters: Mapping[str, Tensor], stack: str) -> int:
    found = {match[1] for name in parameters if (match := re.match(rf"{stack}/layers_(\d+)/", name))}
    return len(found)


def _t5x_names(parameters: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    gated = "encoder/layers_0/mlp/wi_0/kernel" in parameters
    weights = {}
    for name, tensor in parameters.items():
        inside = _inside(name)
        if inside is None:
            raise UserError(f"{where} holds the array {name!r}, which T5 does not have")
        turned = name.endswith(("/kernel", "/rel_embedding"))
        weights[checkpoint.hub_name(f"{inside}.weight", gated=gated)] = tensor.t() if turned else tensor
    return weights


def _inside(name: str) -> str | None:
    if name in _TOP:
        return _TOP[name]
    match = re.fullmatch(r"(encoder|decoder)/(?:layers_(\d+)/)?(.+)", name)
    if match is None:
        return None
    stack, layer, part = match.groups()
    if part == "relpos_bias/rel_embedding":
        return f"{stack}.position_biases.{layer or 0}.table"
    return f"{stack}.layers.{layer}.{_LAYER[part]}" if layer is not None and part in _LAYER else None
