"""T5 for CTranslate2: its own description of a Transformer, filled from our weights.

What CTranslate2 calls by other names: a norm's weight is `gamma`, the matrices of one input are concatenated in
`linear[0]` (self-attention: query, key, value; cross-attention: query, then key and value), the last of `linear` is
the output's; a gate is `linear_0`, which has the activation, beside `linear_0_noact`. Every layer has a table of
relative positions; where T5's layers share one, so do CTranslate2's in the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from unmask import hub
from unmask.errors import MissingExtraError, UserError
from unmask.export.card import write_export_card
from unmask.export.place import check_place, new_directory
from unmask.t5.byte_tokenizer import AnyT5Tokenizer, load_tokenizer
from unmask.t5.config import FEED_FORWARDS, KINDS
from unmask.t5.model import T5Attention, T5FeedForward, T5ForConditionalGeneration, T5Stack

#: How CTranslate2 stores the weights.
StoredType = Literal["float32", "bfloat16", "int8"]

WEIGHTS = "model.bin"
VOCABULARY = "shared_vocabulary.json"
#: Files that an export consists of, beside the tokenizer's own.
FILES = (WEIGHTS, hub.CONFIG, VOCABULARY, hub.GENERATION_CONFIG)

_USE = """\
import ctranslate2
from unmask.t5.byte_tokenizer import load_tokenizer

translator, tokenizer = ctranslate2.Translator("{place}"), load_tokenizer("{place}")
tokens = tokenizer.convert_ids_to_tokens(tokenizer.encode("a text"))
print(translator.translate_batch([tokens], beam_size=1)[0].hypotheses[0])"""

_ACTIVATIONS = {"relu": "RELU", "gelu": "GELU", "gelu_tanh": "GELUTanh", "silu": "SWISH"}


def export(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dtype: StoredType = "float32",
    overwrite: bool = False,
) -> None:
    """Write a T5 as a model directory of CTranslate2, whole or not at all.

    Beside CTranslate2's own files it holds the tokenizer and generation_config.json. The vocabulary lists the
    tokenizer's tokens by id, and `<unused_N>` for rows of the embedding that no token has.

    Args:
        model: a model directory or Hub name, of any type of T5.
        dtype: how the weights are stored; activations are computed as CTranslate2 chooses for the processor.
        overwrite: replace an earlier export.

    Raises:
        UserError: no such model, one that is no T5 with a decoder, a tokenizer of another model, a place that
            is taken.
        MissingExtraError: CTranslate2 is not installed.
    """
    place = Path(out).expanduser()
    check_place(place, overwrite=overwrite, signs=FILES)
    require()
    directory = hub.find_model(model)
    _check_family(directory)
    loaded = T5ForConditionalGeneration.from_pretrained(directory, dtype="float32")
    tokenizer = load_tokenizer(directory)
    spec = specification(loaded, tokenizer)
    spec.validate()
    spec.optimize(quantization=dtype)
    with new_directory(place, overwrite=overwrite, signs=FILES) as temporary:
        spec.save(str(temporary))
        tokenizer.save_pretrained(temporary)
        hub.write_json(temporary / hub.GENERATION_CONFIG, loaded.generation_config)
        write_export_card(
            temporary,
            model,
            directory,
            form="a model of CTranslate2",
            library="ctranslate2",
            facts=[("architecture", loaded.hub_architecture), ("weights", dtype)],
            use=_USE.format(place=place.name),
        )


def read_vocabulary(directory: Path) -> list[str]:
    """The token of each id of an export.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = directory / VOCABULARY
    try:
        tokens = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise UserError(f"{path} is no list of tokens")
    return tokens


def require() -> None:
    """Raises:
    MissingExtraError: CTranslate2 is not installed.
    """
    try:
        import ctranslate2  # noqa: F401
    except ImportError:
        raise MissingExtraError("CTranslate2", "ct2") from None


def _check_family(directory: Path) -> None:
    kind = hub.read_json(directory / hub.CONFIG).get("model_type")
    if kind not in KINDS:
        raise UserError(f"{directory} holds a model of type {kind!r}: CTranslate2 takes {', '.join(KINDS)}")


@torch.no_grad()
def specification(model: T5ForConditionalGeneration, tokenizer: AnyT5Tokenizer) -> Any:
    """CTranslate2's `TransformerSpec` of a float32 model.

    It holds the model's own memory, and `optimize` writes to it: the model is of no use afterwards.

    Raises:
        UserError: a tokenizer with more tokens than the model.
    """
    from ctranslate2.specs import common_spec, transformer_spec

    config = model.config
    activation, gated = FEED_FORWARDS[config.feed_forward_proj]
    spec = transformer_spec.TransformerSpec.from_config(
        (config.num_layers, config.decoder_layers),
        config.num_heads,
        pre_norm=True,
        activation=common_spec.Activation[_ACTIVATIONS[activation]],
        ffn_glu=gated,
        relative_attention_bias=True,
        rms_norm=True,
    )
    embedding = _array(model.embedding.weight)
    spec.encoder.embeddings[0].weight = spec.decoder.embeddings.weight = embedding
    _fill_stack(spec.encoder, model.encoder)
    _fill_stack(spec.decoder, model.decoder)
    spec.decoder.projection.weight = embedding if model.output is None else _array(model.output.weight)
    if config.scale_decoder_outputs:
        spec.decoder.scale_outputs = config.d_model**-0.5
    _fill_vocabulary(spec, model, tokenizer)
    spec.config.add_attribute("layer_norm_epsilon", config.layer_norm_epsilon)
    return spec


def _fill_stack(spec: Any, stack: T5Stack) -> None:
    spec.scale_embeddings = False
    spec.layer_norm.gamma = _array(stack.final_norm.weight)
    layer: Any
    for number, (part, layer) in enumerate(zip(spec.layer, stack.layers, strict=True)):
        # One table a stack, or one a layer (umT5).
        _fill_positions(part.self_attention, stack.position_biases[number % len(stack.position_biases)])
        _fill_attention(part.self_attention, layer.attention, layer.attention_norm, split=3)
        if hasattr(layer, "cross_attention"):
            _fill_attention(part.attention, layer.cross_attention, layer.cross_norm, split=1)
        _fill_feed_forward(part.ffn, layer.feed_forward)
        part.ffn.layer_norm.gamma = _array(layer.feed_forward_norm.weight)


def _fill_positions(spec: Any, bias: Any) -> None:
    spec.relative_attention_bias = _array(bias.table.weight)
    spec.relative_attention_max_distance = np.int32(bias.max_distance)


def _fill_attention(spec: Any, attention: T5Attention, norm: Any, *, split: int) -> None:
    """Args:
    split: how many of query, key and value read the decoder's or encoder's own stream.
    """
    parts = [attention.query.weight, attention.key.weight, attention.value.weight]
    spec.queries_scale = 1.0  # T5's scores are not divided by the square root of the width
    spec.layer_norm.gamma = _array(norm.weight)
    spec.linear[0].weight = _array(torch.cat(parts[:split]))
    if split < len(parts):
        spec.linear[1].weight = _array(torch.cat(parts[split:]))
    spec.linear[-1].weight = _array(attention.output.weight)


def _fill_feed_forward(spec: Any, block: T5FeedForward) -> None:
    if block.gate is None:
        spec.linear_0.weight = _array(block.up.weight)
    else:
        spec.linear_0.weight = _array(block.gate.weight)
        spec.linear_0_noact.weight = _array(block.up.weight)
    spec.linear_1.weight = _array(block.down.weight)


def _fill_vocabulary(spec: Any, model: T5ForConditionalGeneration, tokenizer: AnyT5Tokenizer) -> None:
    config = model.config
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model knows {config.vocab_size}: "
            "they do not belong together"
        )
    tokens = _distinct(tokenizer.convert_ids_to_tokens(range(config.vocab_size)))
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    start = tokens[config.decoder_start_token_id]
    spec.config.bos_token = spec.config.decoder_start_token = start
    spec.config.eos_token = tokens[config.eos_token_id]
    spec.config.unk_token = tokens[tokenizer.unk_token_id]


def _distinct(tokens: Sequence[str | None]) -> list[str]:
    """CTranslate2 finds ids by tokens: none may stand there twice."""
    seen: set[str] = set()
    distinct = []
    for number, token in enumerate(tokens):
        name = f"<unused_{number}>" if token is None or token in seen else token
        seen.add(name)
        distinct.append(name)
    return distinct


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(tensor.detach().numpy())
