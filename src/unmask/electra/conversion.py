"""Google's TensorFlow 1 checkpoints of ELECTRA: their names → ours, and sizes read off the arrays.

Names: google-research/electra `model/modeling.py` and `run_pretraining.py`. Both halves lie in one file: the
discriminator under `electra/`, the generator under `generator/`. What they share, the embeddings, is under
`electra/embeddings/`, except where the generator was trained with tables of its own. A model of masked
language modelling alone has its encoder under `electra/` and `generator_predictions/` on top.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmask import hub
from unmask.electra.config import ElectraConfig
from unmask.electra.model import ElectraBackbone, ElectraForMaskedLM, ElectraForPreTraining
from unmask.electra.pair import DISCRIMINATOR, GENERATOR
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import MissingExtraError, UserError

INDEX = ".index"
#: Width of an attention head in every model of this code (`get_generator_config` divides by it as well).
HEAD_WIDTH = 64

_KINDS: dict[str, type[ElectraBackbone]] = {
    GENERATOR: ElectraForMaskedLM,
    DISCRIMINATOR: ElectraForPreTraining,
}
#: Names on the Hub → TensorFlow's, for what the rules of `_tensorflow_name` do not give.
_IRREGULAR = {
    "generator_lm_head.bias": "generator_predictions/output_bias",
    "discriminator_predictions.dense_prediction.weight": "discriminator_predictions/dense_1/kernel",
    "discriminator_predictions.dense_prediction.bias": "discriminator_predictions/dense_1/bias",
}


@dataclass(frozen=True)
class Row:
    """What became of one tensor.

    Attributes:
        name: in the checkpoint.
        shape: there; of a missing one, what it should be.
        fate: "used", "unused" or "missing".
        into: names on the Hub, with the half in front, where it went or should have come from.
    """

    name: str
    shape: tuple[int, ...]
    fate: str
    into: tuple[str, ...] = ()


@dataclass(frozen=True)
class Converted:
    """A checkpoint, read.

    Attributes:
        where: the checkpoint's path, without `.index`.
        table: a row for each tensor that is there, and for each that is missing.
        configs: of the halves that it holds.
        weights: of each half, by their names on the Hub.
    """

    where: Path
    table: list[Row]
    configs: dict[str, ElectraConfig]
    weights: dict[str, dict[str, Tensor]]

    def model(self, half: str, **settings: Any) -> Any:
        """The generator (`ElectraForMaskedLM`) or the discriminator (`ElectraForPreTraining`), for inference.

        Raises:
            UserError: a half that is not there, a tensor that is missing, an unknown setting.
        """
        if half not in self.configs:
            raise UserError(f"{self.where} holds no {half}, only {' and '.join(self.configs)}")
        self.check()
        kind = _KINDS[half]
        return kind.from_weights(
            self.configs[half], dict(self.weights[half]), str(self.where), **settings
        ).eval()

    def check(self) -> None:
        """Refuse a checkpoint with a hole.

        Raises:
            UserError: tensors are missing.
        """
        missing = [row.name for row in self.table if row.fate == "missing"]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UserError(f"{self.where} lacks the tensor {missing[0]!r}{more}")


def find_checkpoint(path: str | os.PathLike[str]) -> Path | None:
    """The prefix of a TensorFlow checkpoint's files, the newest of a directory; None: there is none.

    Args:
        path: a directory, the prefix (`model.ckpt-1000000`), or the file that ends in `.index`.
    """
    source = Path(path).expanduser()
    if source.is_dir():
        indices = sorted(source.glob(f"*{INDEX}"), key=_step)
        return indices[-1].with_suffix("") if indices else None
    source = source.with_suffix("") if source.suffix == INDEX else source
    return source if source.with_name(source.name + INDEX).is_file() else None


def _step(index: Path) -> tuple[int, str]:
    number = re.search(r"-(\d+)\.index$", index.name)
    return int(number[1]) if number else -1, index.name


def from_tensorflow(path: str | os.PathLike[str], *, num_attention_heads: int | None = None) -> Converted:
    """Read a checkpoint of google-research/electra.

    Args:
        path: see `find_checkpoint`.
        num_attention_heads: of the discriminator, whose arrays do not say; default: one for each 64 of width.
            The generator's heads are as wide.

    Raises:
        UserError: no checkpoint there, or one of another model; heads that do not divide the width.
        MissingExtraError: TensorFlow is not installed.
    """
    prefix = find_checkpoint(path)
    if prefix is None:
        raise UserError(f"no TensorFlow checkpoint at {path}: looked for a file that ends in {INDEX}")
    arrays = _read(prefix)
    scopes = dict(_scopes(arrays))
    if not scopes:
        raise UserError(f"{prefix} is no ELECTRA: it has neither 'discriminator_predictions' nor a generator")
    head_width = HEAD_WIDTH
    if num_attention_heads is not None:
        width = _shape(arrays, f"{scopes.get(DISCRIMINATOR, 'electra')}/{_QUERY}", prefix)[0]
        head_width = max(1, width // num_attention_heads)
    used: dict[str, list[str]] = {}
    missing: dict[str, Row] = {}
    configs: dict[str, ElectraConfig] = {}
    weights: dict[str, dict[str, Tensor]] = {}
    for half, scope in scopes.items():
        tables = scope if f"{scope}/embeddings/word_embeddings" in arrays else "electra"
        configs[half] = _config(arrays, scope, tables, head_width, prefix)
        weights[half] = {}
        for name, shape in _expected(_KINDS[half], configs[half]):
            theirs = _tensorflow_name(name, scope, tables)
            turned = theirs.endswith("/kernel")
            if theirs not in arrays:
                missing[theirs] = Row(
                    theirs, shape[::-1] if turned else shape, "missing", (f"{half}: {name}",)
                )
                continue
            tensor = arrays[theirs]
            weights[half][name] = (tensor.t() if turned else tensor).float().contiguous()
            used.setdefault(theirs, []).append(f"{half}: {name}")
    table = [
        Row(name, tuple(tensor.shape), "used" if name in used else "unused", tuple(used.get(name, ())))
        for name, tensor in sorted(arrays.items())
    ]
    return Converted(prefix, [*table, *missing.values()], configs, weights)


def convert(
    source: Converted, out: str | os.PathLike[str], *, tokenizer: str | os.PathLike[str] | None = None
) -> None:
    """Write what a checkpoint holds, whole or not at all: a pair directory, or one model's where one is there.

    Args:
        tokenizer: a model directory or Hub name whose tokenizer goes along; None: `vocab.txt` beside the
            checkpoint, if there is one.

    Raises:
        UserError: a tensor is missing.
    """
    models = {half: source.model(half) for half in source.configs}
    beside = source.where.parent
    kept = None
    if tokenizer is not None or (beside / "vocab.txt").is_file():
        kept = ElectraTokenizer.from_pretrained(beside if tokenizer is None else tokenizer)
    with hub.atomic_directory(Path(out)) as directory:
        for half, model in models.items():
            model.save_pretrained(directory / half if len(models) > 1 else directory)
        if kept is not None:
            kept.save_pretrained(directory)


def _read(prefix: Path) -> dict[str, Tensor]:
    """All arrays but the optimiser's and the step's, which are many and no part of the model."""
    try:
        import tensorflow
    except ModuleNotFoundError:
        raise MissingExtraError("reading TensorFlow checkpoints", "tensorflow") from None
    try:
        reader = tensorflow.train.load_checkpoint(str(prefix))
        names = [name for name in reader.get_variable_to_shape_map() if not _is_bookkeeping(name)]
        return {name: torch.from_numpy(reader.get_tensor(name).copy()) for name in names}
    except (tensorflow.errors.OpError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{prefix} cannot be read: {reason}") from None


def _is_bookkeeping(name: str) -> bool:
    return name == "global_step" or name.endswith(("/adam_m", "/adam_v"))


def _scopes(arrays: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Halves and where their encoders are."""

    def holds(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in arrays)

    if holds("generator_predictions/"):
        yield GENERATOR, "generator" if holds("generator/") else "electra"
    if holds("discriminator_predictions/"):
        yield DISCRIMINATOR, "electra"


_QUERY = "encoder/layer_0/attention/self/query/kernel"


def _shape(arrays: Mapping[str, Tensor], name: str, where: Path) -> tuple[int, ...]:
    if name not in arrays:
        raise UserError(f"{where} lacks the tensor {name!r}, which says how large the model is")
    return tuple(arrays[name].shape)


def _config(
    arrays: Mapping[str, Tensor], scope: str, tables: str, head_width: int, where: Path
) -> ElectraConfig:
    vocab_size, embedding_size = _shape(arrays, f"{tables}/embeddings/word_embeddings", where)
    hidden_size, _ = _shape(arrays, f"{scope}/{_QUERY}", where)
    layers = {match[1] for name in arrays if (match := re.match(rf"{scope}/encoder/layer_(\d+)/", name))}
    return ElectraConfig(
        vocab_size=vocab_size,
        embedding_size=embedding_size,
        hidden_size=hidden_size,
        num_hidden_layers=len(layers),
        num_attention_heads=max(1, hidden_size // head_width),
        intermediate_size=_shape(arrays, f"{scope}/encoder/layer_0/intermediate/dense/kernel", where)[1],
        max_position_embeddings=_shape(arrays, f"{tables}/embeddings/position_embeddings", where)[0],
        type_vocab_size=_shape(arrays, f"{tables}/embeddings/token_type_embeddings", where)[0],
    )


def _expected(kind: type[ElectraBackbone], config: ElectraConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names on the Hub and shapes of a model's tensors."""
    with torch.device("meta"):
        model = kind(config)
    for name, tensor in model.state_dict().items():
        yield kind.hub_name(name), tuple(tensor.shape)


def _tensorflow_name(name: str, scope: str, tables: str) -> str:
    """`electra.encoder.layer.3.attention.self.query.weight` → `electra/encoder/layer_3/…/query/kernel`."""
    if name in _IRREGULAR:
        return _IRREGULAR[name]
    stem, kind = name.rsplit(".", 1)
    path = re.sub(r"layer\.(\d+)", r"layer_\1", stem).replace(".", "/")
    if path.startswith("electra/"):
        path = (
            f"{tables if path.startswith('electra/embeddings/') else scope}/{path.removeprefix('electra/')}"
        )
    if path.endswith("_embeddings"):
        return path
    ends = {"weight": "gamma", "bias": "beta"} if path.endswith("LayerNorm") else {"weight": "kernel"}
    return f"{path}/{ends.get(kind, kind)}"
