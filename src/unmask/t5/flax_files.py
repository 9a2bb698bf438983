"""Read the checkpoint files of Flax and T5X: nested names and arrays in MessagePack, large arrays beside it.

MessagePack holds plain values, so unlike a pickle it cannot run code. Formats: flax `serialization.py` (extension
type 1 is an array, 3 a scalar, each packed as shape, type, bytes; arrays over 1 GiB come in chunks) and t5x
`checkpoints.py` (arrays that TensorStore keeps in a directory of their own are named by a dictionary with a
"driver").
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmask.errors import MissingExtraError, UserError

_TYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "uint8": torch.uint8,
}
_ARRAYS = (1, 3)
_CHUNKED = "__msgpack_chunked_array__"


@dataclass(frozen=True)
class _Packed:
    """An extension value, left packed until it is asked for: optimiser states never are."""

    code: int
    data: bytes


def read_parameters(path: Path) -> dict[str, Tensor]:
    """The parameters in a Flax or T5X checkpoint file, by names such as `encoder/layers_0/mlp/wo/kernel`.

    Args:
        path: the MessagePack file, plain or gzipped; T5X's large arrays are looked for beside it.

    Raises:
        MissingExtraError: `msgpack` (or, for arrays beside the file, `tensorstore`) is not installed.
        UserError: the file is unreadable, damaged or holds no parameters.
    """
    tree = _unpack(path)
    tree = tree.get("optimizer", tree)
    for wrapper in ("target", "params"):
        tree = tree.get(wrapper, tree) if isinstance(tree, dict) else {}
    parameters = {name: _tensor(value, name, path) for name, value in _leaves(tree)}
    if not parameters:
        raise UserError(f"{path} holds no parameters")
    return parameters


def _unpack(path: Path) -> dict[str, Any]:
    try:
        import msgpack
    except ImportError:
        raise MissingExtraError("reading Flax and T5X checkpoints", "convert") from None
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        tree = msgpack.unpackb(data, ext_hook=_Packed, strict_map_key=False)
    except Exception as error:  # bytes that are no MessagePack make the reader fail in any way at all
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read as a Flax checkpoint: {reason}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds {type(tree).__name__}, not named parameters")
    return tree


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and _CHUNKED not in value and "driver" not in value:
            yield from _leaves(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def _tensor(value: Any, name: str, path: Path) -> Tensor:
    try:
        if isinstance(value, _Packed) and value.code in _ARRAYS:
            return _array(value.data)
        if isinstance(value, dict) and _CHUNKED in value:
            chunks = value["chunks"]
            shape = [value["shape"][str(place)] for place in range(len(value["shape"]))]
            return torch.cat([_array(chunks[str(place)].data) for place in range(len(chunks))]).reshape(shape)
        if isinstance(value, dict) and "driver" in value:
            return _stored(value, path.parent)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: the array {name!r} is damaged: {reason}") from None
    raise UserError(f"{path}: {name!r} is {type(value).__name__}, not an array")


def _array(data: bytes) -> Tensor:
    import msgpack

    shape, kind, buffer = msgpack.unpackb(data, raw=True)
    name = kind.decode()
    if name not in _TYPES:
        raise ValueError(f"its type {name} is not one of {', '.join(_TYPES)}")
    if math.prod(shape) == 0:
        return torch.empty(shape, dtype=_TYPES[name])
    return torch.frombuffer(bytearray(buffer), dtype=_TYPES[name]).reshape(shape)


def _stored(spec: dict[str, Any], directory: Path) -> Tensor:
    """An array that T5X left to TensorStore, in a directory beside the file."""
    try:
        import tensorstore
    except ImportError:
        raise MissingExtraError("reading the large arrays of T5X checkpoints", "convert") from None
    # Only the last part of the path is believed: the checkpoint may have been copied, and must not lead elsewhere.
    if spec["driver"] != "zarr":
        raise ValueError(f"its driver {spec['driver']!r} is not zarr")
    place = directory / Path(spec["kvstore"]["path"]).name
    if not place.is_dir():
        raise ValueError(f"{place} is missing")
    where = {"driver": spec["driver"], "kvstore": {"driver": "file", "path": f"{place}/"}}
    array = tensorstore.open(where, open=True, read=True).result().read().result()
    name = array.dtype.name
    if name == "bfloat16":
        return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(array)
