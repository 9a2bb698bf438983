"""ONNX Runtime: encoder and one step of the decoder as graphs, the cache bound in place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file


def load(model: Path, precision: str, threads: int) -> Callable[[np.ndarray, int, int], np.ndarray]:
    config = json.loads((model / "config.json").read_text())
    weights = load_file(model / "model.safetensors")
    encoder = _session(Graph(config, weights).encoder(), precision, threads)
    decoder = _session(Graph(config, weights).decoder(), precision, threads)
    names = [f"{kind}{i}" for i in range(config["num_decoder_layers"]) for kind in ("key", "value")]
    tables = {
        name: weights[f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        for name in ("encoder", "decoder")
    }

    def generate(ids: np.ndarray, new: int, beams: int) -> np.ndarray:
        if beams > 1:
            raise NotImplementedError("this peer decodes greedily")
        batch, length = ids.shape
        bias = position_bias(tables["encoder"], np.arange(length), length, config, two_sided=True)
        crossed = encoder.run(None, {"ids": ids, "bias": bias})
        value = onnxruntime.OrtValue.ortvalue_from_numpy
        binding = decoder.io_binding()
        for name, array in zip(names, crossed, strict=True):
            binding.bind_ortvalue_input(f"cross_{name}", value(array))
        empty = np.zeros((batch, config["num_heads"], 0, config["d_kv"]), np.float32)
        cache = [value(empty) for _ in names]
        token = value(np.full((batch, 1), config["decoder_start_token_id"]))
        biases = position_bias(tables["decoder"], np.arange(new), new, config, two_sided=False)
        written = []
        for step in range(new):
            binding.bind_ortvalue_input("ids", token)
            row = np.ascontiguousarray(biases[:, :, step : step + 1, : step + 1])
            binding.bind_ortvalue_input("bias", value(row))
            for name, past in zip(names, cache, strict=True):
                binding.bind_ortvalue_input(f"past_{name}", past)
            binding.bind_output("next", "cpu")
            for name in names:
                binding.bind_output(f"present_{name}", "cpu")
            decoder.run_with_iobinding(binding)
            token, *cache = binding.get_outputs()
            written.append(token.numpy())
        return np.concatenate(written, 1)

    return generate


def position_bias(
    table: np.ndarray, queries: np.ndarray, keys: int, config: dict[str, Any], *, two_sided: bool
) -> np.ndarray:
    """(1, heads, queries, keys) float32."""
    import torch

    from unmask.nn.relative_position import relative_position_bucket

    distance = torch.arange(keys)[None] - torch.from_numpy(queries)[:, None]
    buckets = relative_position_bucket(
        distance,
        bidirectional=two_sided,
        buckets=config["relative_attention_num_buckets"],
        max_distance=config["relative_attention_max_distance"],
    )
    return np.ascontiguousarray(table[buckets.numpy()].transpose(2, 0, 1)[None])


def _session(graph: onnx.ModelProto, precision: str, threads: int) -> onnxruntime.InferenceSession:
    path = Path(mkdtemp()) / "model.onnx"
    onnx.save(graph, path)
    if precision == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        whole, path = path, path.with_name("int8.onnx")
        quantize_dynamic(
            whole,
            path,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul"],
            extra_options={"MatMulConstBOnly": True},
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Graph:
    """A T5 v1.0 written as ONNX nodes."""

    def __init__(self, config: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
        self.config, self.weights = config, weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.heads, self.width = config["num_heads"], config["d_kv"]

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = attributes.pop("output", f"{kind}_{len(self.nodes)}")
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, value: Any, kind: Any = np.float32) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = np.asarray(value, kind)
        return name

    def input(self, name: str, kind: int, *shape: Any) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, value: str, name: str, kind: int = TensorProto.FLOAT) -> None:
        self.node("Identity", value, output=name)
        self.outputs.append(helper.make_tensor_value_info(name, kind, None))

    def norm(self, x: str, name: str) -> str:
        mean = self.node("ReduceMean", self.node("Pow", x, self.constant(2.0)), axes=[-1], keepdims=1)
        root = self.node("Sqrt", self.node("Add", mean, self.constant(self.config["layer_norm_epsilon"])))
        return self.node("Mul", self.node("Div", x, root), self.constant(self.weights[f"{name}.weight"]))

    def linear(self, x: str, name: str) -> str:
        return self.node("MatMul", x, self.constant(self.weights[f"{name}.weight"].T.copy()))

    def split(self, x: str, *order: int) -> str:
        shape = self.constant([0, -1, self.heads, self.width], np.int64)
        return self.node("Transpose", self.node("Reshape", x, shape), perm=list(order or (0, 2, 1, 3)))

    def attend(self, query: str, keys: str, values: str, bias: str | None, output: str) -> str:
        scores = self.node("MatMul", query, self.node("Transpose", keys, perm=[0, 1, 3, 2]))
        scores = scores if bias is None else self.node("Add", scores, bias)
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), values)
        mixed = self.node("Transpose", mixed, perm=[0, 2, 1, 3])
        shape = self.constant([0, -1, self.heads * self.width], np.int64)
        return self.linear(self.node("Reshape", mixed, shape), output)

    def feed_forward(self, x: str, block: str) -> str:
        inner = self.linear(self.norm(x, f"{block}.layer_norm"), f"{block}.DenseReluDense.wi")
        return self.node("Add", x, self.linear(self.node("Relu", inner), f"{block}.DenseReluDense.wo"))

    def embedded(self) -> str:
        ids = self.input("ids", TensorProto.INT64, "batch", "length")
        return self.node("Gather", self.constant(self.weights["shared.weight"]), ids)

    def finished(self) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "t5",
            self.inputs,
            self.outputs,
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def encoder(self) -> onnx.ModelProto:
        """ids → cross-attention's keys and values of each decoder layer."""
        x = self.embedded()
        bias = self.input("bias", TensorProto.FLOAT, 1, self.heads, "queries", "keys")
        for number in range(self.config["num_layers"]):
            block = f"encoder.block.{number}.layer"
            normed = self.norm(x, f"{block}.0.layer_norm")
            parts = [self.split(self.linear(normed, f"{block}.0.SelfAttention.{part}")) for part in "qkv"]
            x = self.node("Add", x, self.attend(*parts, bias, f"{block}.0.SelfAttention.o"))
            x = self.feed_forward(x, f"{block}.1")
        x = self.norm(x, "encoder.final_layer_norm")
        for number in range(self.config["num_decoder_layers"]):
            name = f"decoder.block.{number}.layer.1.EncDecAttention"
            self.output(self.split(self.linear(x, f"{name}.k")), f"key{number}")
            self.output(self.split(self.linear(x, f"{name}.v")), f"value{number}")
        return self.finished()

    def decoder(self) -> onnx.ModelProto:
        """One token of each row, the caches → the next token and longer caches."""
        x = self.embedded()
        bias = self.input("bias", TensorProto.FLOAT, 1, self.heads, 1, "keys")
        present = []
        for number in range(self.config["num_decoder_layers"]):
            block = f"decoder.block.{number}.layer"
            normed = self.norm(x, f"{block}.0.layer_norm")
            query, key, value = (
                self.split(self.linear(normed, f"{block}.0.SelfAttention.{part}")) for part in "qkv"
            )
            keys = self.node("Concat", self.cache("past_key", number), key, axis=2)
            values = self.node("Concat", self.cache("past_value", number), value, axis=2)
            present += [(keys, f"present_key{number}"), (values, f"present_value{number}")]
            x = self.node("Add", x, self.attend(query, keys, values, bias, f"{block}.0.SelfAttention.o"))
            name = f"{block}.1.EncDecAttention"
            query = self.split(self.linear(self.norm(x, f"{block}.1.layer_norm"), f"{name}.q"))
            keys, values = self.cache("cross_key", number), self.cache("cross_value", number)
            x = self.node("Add", x, self.attend(query, keys, values, None, f"{name}.o"))
            x = self.feed_forward(x, f"{block}.2")
        x = self.norm(x, "decoder.final_layer_norm")
        x = self.node("Mul", x, self.constant(self.config["d_model"] ** -0.5))
        logits = self.node("MatMul", x, self.constant(self.weights["shared.weight"].T.copy()))
        self.output(self.node("ArgMax", logits, axis=-1, keepdims=0), "next", TensorProto.INT64)
        for value, name in present:
            self.output(value, name)
        return self.finished()

    def cache(self, kind: str, number: int) -> str:
        shape = ("batch", self.heads, f"{kind}_length", self.width)
        return self.input(f"{kind}{number}", TensorProto.FLOAT, *shape)
