"""CTranslate2: its model built straight from a T5 v1.0's weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import ctranslate2
import numpy as np
from ctranslate2.specs import common_spec, transformer_spec
from ctranslate2.specs.model_spec import LayerSpec
from safetensors.numpy import load_file


def load(model: Path, precision: str, threads: int) -> Callable[[np.ndarray, int, int], np.ndarray]:
    config = json.loads((model / "config.json").read_text())
    directory = mkdtemp()
    spec = build(config, load_file(model / "model.safetensors"))
    spec.validate()
    spec.optimize(quantization=None if precision == "float32" else precision)
    spec.save(directory)
    translator = ctranslate2.Translator(
        directory, device="cpu", compute_type=precision, inter_threads=1, intra_threads=threads
    )

    def generate(ids: np.ndarray, new: int, beams: int) -> np.ndarray:
        results = translator.translate_batch(
            [[f"t{i}" for i in row] for row in ids.tolist()],
            beam_size=beams,
            max_decoding_length=new,
            max_input_length=0,
        )
        return np.array([[int(token[1:]) for token in result.hypotheses[0]] for result in results])

    return generate


def build(config: dict[str, Any], weights: dict[str, np.ndarray]) -> transformer_spec.TransformerSpec:
    spec = transformer_spec.TransformerSpec.from_config(
        (config["num_layers"], config["num_decoder_layers"]),
        config["num_heads"],
        pre_norm=True,
        activation=common_spec.Activation.RELU,
        relative_attention_bias=True,
        rms_norm=True,
    )
    for name, stack in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        _stack(stack, name, weights, config)
    spec.decoder.projection.weight = weights["shared.weight"]
    spec.decoder.scale_outputs = config["d_model"] ** -0.5
    tokens = [f"t{i}" for i in range(config["vocab_size"])]
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = "t0", "t1", "t2"
    spec.config.decoder_start_token = "t0"
    return spec


def _stack(stack: LayerSpec, name: str, weights: dict[str, np.ndarray], config: dict[str, Any]) -> None:
    stack.layer_norm.gamma = weights[f"{name}.final_layer_norm.weight"]
    embeddings = stack.embeddings[0] if isinstance(stack.embeddings, list) else stack.embeddings
    embeddings.weight = weights["shared.weight"]
    stack.scale_embeddings = False
    first = f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    for number, layer in enumerate(stack.layer):
        block = f"{name}.block.{number}.layer"
        attention = layer.self_attention
        _attention(attention, f"{block}.0.SelfAttention", weights, fused=3)
        attention.layer_norm.gamma = weights[f"{block}.0.layer_norm.weight"]
        attention.relative_attention_bias = weights[first]
        attention.relative_attention_max_distance = np.dtype("int32").type(
            config["relative_attention_max_distance"]
        )
        if name == "decoder":
            _attention(layer.attention, f"{block}.1.EncDecAttention", weights, fused=1)
            layer.attention.layer_norm.gamma = weights[f"{block}.1.layer_norm.weight"]
        last = f"{block}.{2 if name == 'decoder' else 1}"
        layer.ffn.linear_0.weight = weights[f"{last}.DenseReluDense.wi.weight"]
        layer.ffn.linear_1.weight = weights[f"{last}.DenseReluDense.wo.weight"]
        layer.ffn.layer_norm.gamma = weights[f"{last}.layer_norm.weight"]


def _attention(spec: LayerSpec, name: str, weights: dict[str, np.ndarray], *, fused: int) -> None:
    spec.queries_scale = 1.0
    parts = [weights[f"{name}.{part}.weight"] for part in "qkv"]
    spec.linear[0].weight = np.concatenate(parts[:fused])
    if fused == 1:
        spec.linear[1].weight = np.concatenate(parts[1:])
    spec.linear[-1].weight = weights[f"{name}.o.weight"]
