"""ONNX Runtime in padded batches: Transformers' model exported, fused by ONNX Runtime's own optimiser for BERT,
and for int8 quantised by its own tool. Precision: "float32 sorted", "int8 padded", "int8 sorted".
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import onnx
import onnxruntime
import torch
import transformers
from encode_padded import in_batches
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers import optimizer


def load(model: Path, precision: str, threads: int) -> Callable[[list[list[int]]], np.ndarray]:
    kind, order = precision.split()
    path = export(model, Path(mkdtemp()))
    if kind == "int8":
        quantize_dynamic(
            path,
            path.with_name("int8.onnx"),
            weight_type=QuantType.QInt8,
            per_channel=True,
            # Shape inference stops at the fused operators.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        path = path.with_name("int8.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    types = np.int32 if session.get_inputs()[0].type == "tensor(int32)" else np.int64

    def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return session.run(None, {"ids": ids.astype(types), "mask": mask.astype(types)})[0]

    return in_batches(forward, by_length=order == "sorted")


class _Classifier(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids, attention_mask=mask).logits


def export(model: Path, folder: Path) -> Path:
    loaded = transformers.ElectraForSequenceClassification.from_pretrained(model, attn_implementation="eager")
    ids = torch.randint(5, 100, (2, 16))
    axes = {0: "batch", 1: "length"}
    torch.onnx.export(
        _Classifier(loaded.eval()),
        (ids, torch.ones_like(ids)),
        str(folder / "plain.onnx"),
        input_names=["ids", "mask"],
        output_names=["logits"],
        dynamic_axes={"ids": axes, "mask": axes, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    config = loaded.config
    fused = optimizer.optimize_model(
        str(folder / "plain.onnx"),
        model_type="bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        opt_level=1,
    )
    found = fused.get_fused_operator_statistics()
    print({name: count for name, count in found.items() if count})
    fused.save_model_to_file(str(folder / "fused.onnx"))
    return folder / "fused.onnx"
