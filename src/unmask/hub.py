"""Find, download, read and write model directories in the Hub's layout, safely.

A model directory holds `config.json`, `model.safetensors` (or shards with an index), the tokenizer's own
files and, for models that generate, `generation_config.json`. Nothing here knows a model family.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
#: What marks a directory as an adapter of another model (`unmask.nn.adapter_files`).
ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
#: What was written before safetensors; read with weights-only loading, never written.
LEGACY_WEIGHTS = "pytorch_model.bin"
LEGACY_WEIGHTS_INDEX = "pytorch_model.bin.index.json"

# What a model directory can consist of: nothing else is downloaded (no code, no other framework).
DOWNLOADED = ["*.json", "*.safetensors", "*.model", "*.txt"]
# Only where there are no safetensors.
DOWNLOADED_LEGACY = ["pytorch_model*.bin"]


def find_model(name_or_path: str | os.PathLike[str], *, revision: str | None = None) -> Path:
    """The directory of a model: a path, a name in the local Hub cache, or a download, in that order.

    Raises:
        UserError: neither a directory, nor cached, nor downloadable; says what was looked for and where.
    """
    if not str(name_or_path):
        raise UserError("the model's name is empty: give a directory or a Hub name")
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise UserError(f"{path} is a file: give the model's directory")
    return _from_hub(str(name_or_path), revision)


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    looked_in = f"a directory {Path(name).expanduser().absolute()}"
    try:
        try:
            cached = snapshot_download(
                name, revision=revision, allow_patterns=DOWNLOADED, local_files_only=True
            )
            # A cache entry can be partial (only the tokenizer was once fetched): then ask the Hub again.
            # A directory can also be one that holds several models.
            configs = (file for name in (CONFIG, ADAPTER) for file in Path(cached).rglob(name))
            if any(_has_weights(config.parent) for config in configs):
                return Path(cached)
        except LocalEntryNotFoundError:
            pass
        directory = Path(snapshot_download(name, revision=revision, allow_patterns=DOWNLOADED))
        if not _has_weights(directory):
            snapshot_download(name, revision=revision, allow_patterns=DOWNLOADED_LEGACY)
        return directory
    except HFValidationError:
        raise UserError(f"no model {name!r}: looked for {looked_in}, and it is no valid Hub name") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"no model {name!r}: looked for {looked_in}, in the Hub cache {constants.HF_HUB_CACHE}, "
            f"and at {constants.ENDPOINT}/{name} ({reason}); give a directory, or connect once to download it"
        ) from None


def is_adapter(directory: Path) -> bool:
    """Whether a directory holds an adapter (LoRA) and no weights of its own."""
    return (directory / ADAPTER).is_file() and not (directory / WEIGHTS).is_file()


def base_of(directory: Path) -> Path:
    """The directory of the model that an adapter adapts; of any other model, its own.

    Raises:
        UserError: there is no such model, or it is an adapter itself.
    """
    if not is_adapter(directory):
        return directory
    path = directory / ADAPTER
    name = read_json(path).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise UserError(f"{path} does not say which model it adapts (base_model_name_or_path)")
    try:
        base = find_model(name)
    except UserError as error:
        raise UserError(f"{directory} is an adapter whose base model is not there: {error}") from None
    if is_adapter(base):
        raise UserError(f"{directory} adapts {base}, which is an adapter itself: write that as a model first")
    return base


def tokenizer_directory(directory: Path) -> Path:
    """Where a model's tokenizer is: an adapter without one has its base model's."""
    named = ("*token*", "*.model", "vocab.txt")
    if is_adapter(directory) and not any(file for name in named for file in directory.glob(name)):
        return base_of(directory)
    return directory


def _has_weights(directory: Path) -> bool:
    """Whether the weights are there, all shards of an index included: other programs fetch indices alone."""
    if (directory / ADAPTER).is_file() and (directory / ADAPTER_WEIGHTS).is_file():
        return True
    for single, index in ((WEIGHTS, WEIGHTS_INDEX), (LEGACY_WEIGHTS, LEGACY_WEIGHTS_INDEX)):
        if (directory / single).is_file():
            return True
        if (directory / index).is_file():
            shards = read_json(directory / index).get("weight_map", {}).values()
            return all((directory / str(shard)).is_file() for shard in shards)
    return False


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UserError: the file is missing, unreadable, or not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent} has no {path.name}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {type(value).__name__}, not a JSON object")
    return value


def read_labels(config: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Names of a head's classes from config.json's `id2label`, or made up for `num_labels` of them.

    Transformers' default is two.

    Raises:
        UserError: numbers that do not count from 0, or values of another type.
    """
    names, count = config.get("id2label"), config.get("num_labels", 2)
    if names is None:
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise UserError(f"{where}: num_labels is {count!r}, not a whole number, at least 1")
        return tuple(f"LABEL_{number}" for number in range(count))
    if not isinstance(names, Mapping):
        raise UserError(f"{where}: id2label is {names!r}, not an object of numbers and names")
    numbered = {str(number): str(label) for number, label in names.items()}
    if set(numbered) != {str(number) for number in range(len(numbered))}:
        raise UserError(f"{where}: id2label has the keys {sorted(numbered)}, they must count from 0")
    return tuple(numbered[str(number)] for number in range(len(numbered)))


def label_entries(labels: Sequence[str]) -> dict[str, Any]:
    """What config.json says about the names of a head's classes."""
    return {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }


def read_weights(directory: Path) -> dict[str, Tensor]:
    """All tensors of a model directory: one file, or the shards of an index; safetensors before pickles.

    Raises:
        UserError: no weights, a damaged file, a shard that is missing or that leaves the directory.
    """
    for single, sharded, read in (
        (WEIGHTS, WEIGHTS_INDEX, read_tensors),
        (LEGACY_WEIGHTS, LEGACY_WEIGHTS_INDEX, _read_legacy),
    ):
        if (directory / single).is_file():
            return read(directory / single)
        if (directory / sharded).is_file():
            return _read_shards(directory / sharded, read)
    raise UserError(f"{directory} has no {WEIGHTS} (nor {WEIGHTS_INDEX}, nor {LEGACY_WEIGHTS})")


def _read_shards(index: Path, read: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise UserError(f"{index} has no 'weight_map'")
    weights: dict[str, Tensor] = {}
    for shard in sorted({str(name) for name in weight_map.values()}):
        if Path(shard).name != shard:
            raise UserError(f"{index} names the shard {shard!r} outside its directory")
        weights |= read(index.parent / shard)
    absent = sorted(set(weight_map) - set(weights))
    if absent:
        raise UserError(f"{index.parent}: the shards lack {len(absent)} indexed tensors, first {absent[0]!r}")
    return weights


def _read_legacy(path: Path) -> dict[str, Tensor]:
    """Tensors of a `pytorch_model.bin`: a pickle, so only what cannot run code is read."""
    from pickle import UnpicklingError

    import torch

    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except UnpicklingError:
        raise UserError(
            f"{path} is damaged, or holds more than tensors, which could run code: refused"
        ) from None
    except Exception as error:  # bytes that are no pickle make the reader fail in any way at all
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read: {reason}") from None
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and torch.is_tensor(value) for name, value in weights.items()
    ):
        raise UserError(f"{path} is no dictionary of names and tensors")
    return dict(weights)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of one safetensors file.

    Raises:
        UserError: the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, beside and then renamed. Keys are written in the order given.

    Raises:
        OSError: no room, or whatever else the system says.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_file(path) as temporary:
        try:
            # Transformers refuses files without this entry.
            save_file(
                {name: tensor.contiguous() for name, tensor in weights.items()}, temporary, {"format": "pt"}
            )
        except SafetensorError as error:
            # The system's errors come as text alone.
            number = re.search(r"\(os error (\d+)\)", str(error))
            if number is None:
                raise
            code = int(number[1])
            raise OSError(code, os.strerror(code), str(path)) from None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object, keys sorted as Transformers does, beside and then renamed."""
    write_atomically(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two settings, in words; empty where nothing does. Hashes are not spelled out."""
    texts = []
    for key in sorted(set(before) | set(now)):
        old, new = before.get(key), now.get(key)
        if key == "fingerprint" or old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            texts.append(differences(old, new))
        elif isinstance(old, str) and len(old) == 64:
            texts.append(f"another {key}")
        else:
            texts.append(f"{key} {old!r}, now {new!r}")
    return ", ".join(texts)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new one, never a part."""
    data = content.encode() if isinstance(content, str) else content
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the system that come out of the block say what could not be written: a full disk names no file."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary file in the same directory that takes the name `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(descriptor)
    temporary = Path(name)
    try:
        with naming(path):
            yield temporary
        temporary.chmod(0o666 & ~_umask())
        _flush_to_disk(temporary)
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A new directory that takes the name `path` only when the block ends well.

    A directory already at `path` is replaced then, and stays untouched if the block fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    try:
        with naming(path):
            yield temporary
        replace_directory(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_directory(made: Path, path: Path) -> None:
    """Give a directory the name `path` in the same file system, in the place of one that is there."""
    made.chmod(0o777 & ~_umask())
    for file in made.rglob("*"):
        if file.is_file():
            _flush_to_disk(file)
    # Two renames: a crash between them leaves the old directory whole under its `.old` name.
    old = path.with_name(f".{path.name}.old")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    made.rename(path)
    shutil.rmtree(old, ignore_errors=True)
    _flush_to_disk(path.parent)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def find_dataset(name: str, *, revision: str, patterns: Sequence[str]) -> Path:
    """The directory of a data set's files, from the Hub's cache or the Hub.

    Args:
        name: on the Hub, such as "nyu-mll/glue".
        revision: branch or commit.
        patterns: of the files that are wanted.

    Raises:
        UserError: it is not there, or the Hub cannot be reached.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    def fetch(*, cached: bool) -> Path:
        return Path(
            snapshot_download(
                name,
                repo_type="dataset",
                revision=revision,
                allow_patterns=list(patterns),
                local_files_only=cached,
            )
        )

    try:
        try:
            found = fetch(cached=True)
            # A cache entry can be of another part of the data set.
            if all(any(found.glob(pattern)) for pattern in patterns):
                return found
        except LocalEntryNotFoundError:
            pass
        found = fetch(cached=False)
        if not any(any(found.glob(pattern)) for pattern in patterns):
            raise FileNotFoundError(f"none of {', '.join(patterns)} at {revision}")
        return found
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"no data set {name!r}: looked for in the Hub cache {constants.HF_HUB_CACHE}, and at "
            f"{constants.ENDPOINT}/datasets/{name} ({reason}); give a directory of its files with --data"
        ) from None
