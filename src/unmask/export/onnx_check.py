"""Whether exported graphs compute what the model computes, found by running both on a few texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.electra.model import ElectraBackbone
from unmask.export.onnx_graphs import pasts
from unmask.t5.model import T5Backbone, T5ForConditionalGeneration

#: Of unlike lengths, so that a batch has padding; in two scripts, so that not all is unknown to a vocabulary.
TEXTS = (
    "The river rose in the night, and by morning the old bridge was under water.",
    "Thank you <extra_id_0> me to your party <extra_id_1> week.",
    "Yes.",
    "早上下了一场大雨，河水涨过了旧桥。",
)
#: Tokens of a text that are read, and that a T5 writes.
LONGEST, NEW = 64, 16
#: How far a float32 graph's logits may be from PyTorch's, as a share of the largest: both add up the same products
#: in other orders.
TOLERANCE = 1e-4

Array = NDArray[Any]


@dataclass(frozen=True)
class Check:
    """A graph beside PyTorch's float32 model.

    Attributes:
        texts: how many were compared.
        largest: the largest difference of two logits over the largest logit.
        change: the size of the logits' change over theirs.
        same: the share of equal predictions: of tokens written greedily by a T5, up to `</s>`; of the largest
            (discriminator: the sign) of an ELECTRA's logits. None: it predicts nothing (an encoder).
    """

    texts: int
    largest: float
    change: float
    same: float | None

    def summary(self) -> str:
        same = "" if self.same is None else f", {self.same:.1%} of the predictions the same"
        return (
            f"logits of {self.texts} texts change by {self.change:.1e} of their size, by {self.largest:.1e} of the "
            f"largest at most{same}"
        )


class OnnxT5:
    """The two graphs of a T5 in ONNX Runtime, on the CPU."""

    def __init__(self, directory: Path, layers: int) -> None:
        self.encoder = session(directory / "encoder.onnx")
        self.decoder = session(directory / "decoder.onnx")
        self.ends = pasts(layers)

    def encode(self, ids: Array, mask: Array) -> dict[str, Array]:
        """(batch, source) int64 both → what the decoder takes for these texts, at every step."""
        made = self.encoder.run(None, {"input_ids": ids, "attention_mask": mask})
        names = [f"cross_{end}" for end in self.ends]
        return {"attention_mask": mask} | dict(zip(names, made, strict=True))

    def step(
        self, ids: Array, source: Mapping[str, Array], past: Mapping[str, Array] | None = None
    ) -> tuple[Array, dict[str, Array]]:
        """(batch, target) int64 after a past (None: the start) → logits (batch, target, vocab_size), longer past."""
        if past is None:
            like = source["cross_key.0"]
            empty = np.zeros((like.shape[0], like.shape[1], 0, like.shape[3]), like.dtype)
            past = {f"past_{end}": empty for end in self.ends}
        logits, *present = self.decoder.run(None, {"input_ids": ids, **source, **past})
        return logits, {f"past_{end}": part for end, part in zip(self.ends, present, strict=True)}


def session(path: Path) -> Any:
    """ONNX Runtime's session on the CPU with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # warnings are about our graph's form, not the user's
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@torch.inference_mode()
def check_t5(model: T5ForConditionalGeneration, directory: Path, rows: Sequence[Sequence[int]]) -> Check:
    """Args:
    directory: with encoder.onnx and decoder.onnx.
    rows: ids of a few texts of unlike lengths.
    """
    config = model.config
    ids, mask = _padded(rows, config.pad_token_id)
    start = torch.full((len(rows), 1), config.decoder_start_token_id)
    expected = start
    for _ in range(NEW):
        logits = model(ids, mask, decoder_input_ids=expected).logits
        expected = torch.cat([expected, logits[:, -1:].argmax(-1)], 1)
    engine = OnnxT5(directory, config.decoder_layers)
    source = engine.encode(ids.numpy(), mask.numpy())
    # Several tokens without a past, then several after one.
    fed = expected[:, :-1].numpy()
    first, past = engine.step(fed[:, : NEW // 2], source)
    second, _ = engine.step(fed[:, NEW // 2 :], source, past)
    found = np.concatenate([first, second], 1)
    written = _greedy(lambda token, past: engine.step(token, source, past), start.numpy(), NEW)
    pairs = [
        _until(row, config.eos_token_id) == _until(other, config.eos_token_id)
        for row, other in zip(expected[:, 1:].tolist(), written.tolist(), strict=True)
    ]
    return _compared(logits.numpy(), found, sum(pairs) / len(pairs), len(rows))


def _greedy(
    step: Callable[[Array, dict[str, Array] | None], tuple[Array, dict[str, Array]]], token: Array, new: int
) -> Array:
    past, written = None, []
    for _ in range(new):
        logits, past = step(token, past)
        token = logits[:, -1:].argmax(-1)
        written.append(token)
    return np.concatenate(written, 1)


def _until(row: list[int], end: int) -> list[int]:
    return row[: row.index(end)] if end in row else row


@torch.inference_mode()
def check_electra(
    model: ElectraBackbone, path: Path, rows: Sequence[Sequence[int]], outputs: Sequence[str]
) -> Check:
    """Args:
    path: of the graph.
    rows: ids of a few texts of unlike lengths.
    outputs: what the graph gives, by the names that the model's output has too.
    """
    ids, mask = _padded(rows, model.config.pad_token_id)
    types = torch.zeros_like(ids)
    types[:, ids.shape[1] // 2 :] = min(1, model.config.type_vocab_size - 1)
    exact = _electra(model, ids, mask, types, outputs)
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return _check_head(path, given, exact, outputs)


@torch.inference_mode()
def check_t5_head(
    model: T5Backbone, path: Path, rows: Sequence[Sequence[int]], outputs: Sequence[str]
) -> Check:
    """`check_electra` for a T5 with a head, or its encoder alone; rows end in `</s>`."""
    ids, mask = _padded(rows, model.config.pad_token_id)
    found = model(ids, mask)
    exact = [getattr(found, name).numpy() for name in outputs]
    return _check_head(path, {"input_ids": ids, "attention_mask": mask}, exact, outputs)


def _check_head(
    path: Path, given: Mapping[str, Tensor], exact: Sequence[Array], outputs: Sequence[str]
) -> Check:
    mask = given["attention_mask"]
    made = session(path).run(list(outputs), {name: value.numpy() for name, value in given.items()})
    kept = mask.numpy() != 0
    # Padding means nothing, and where a model gives one number a text there is none.
    pairs = [
        (one[kept], other[kept]) if one.shape[:2] == kept.shape else (one, other)
        for one, other in zip(exact, made, strict=True)
    ]
    expected, found = (np.concatenate([pair[side].reshape(-1) for pair in pairs]) for side in (0, 1))
    same = [_predictions(one) == _predictions(other) for one, other in pairs]
    predicts = outputs != ["last_hidden_state"]
    share = float(np.concatenate(same).mean()) if predicts else None
    return _compared(expected, found, share, len(mask))


def _electra(
    model: ElectraBackbone, ids: Tensor, mask: Tensor, types: Tensor, outputs: Sequence[str]
) -> list[Array]:
    if model.architecture == "ElectraForMultipleChoice":
        # One example whose choices are the rows.
        given = (part[None] for part in (ids, mask, types))
        return [getattr(model(*given), name)[0].numpy() for name in outputs]
    found = model(ids, mask, types)
    return [getattr(found, name).numpy() for name in outputs]


def _predictions(logits: Array) -> Array:
    return logits > 0 if logits.ndim == 1 else logits.argmax(-1).reshape(-1)


def _compared(exact: Array, found: Array, same: float | None, texts: int) -> Check:
    if exact.shape != found.shape or not np.isfinite(found).all():
        return Check(texts, float("inf"), float("inf"), same)
    difference = np.abs(found - exact)
    change = float(np.square(difference).sum() / np.square(exact).sum()) ** 0.5
    return Check(texts, float(difference.max() / np.abs(exact).max()), change, same)


def _padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """(batch, longest) int64 ids and mask."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask
