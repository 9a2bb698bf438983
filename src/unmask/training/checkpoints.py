"""Checkpoints of a run: written whole or not at all, verified before they are trusted.

A checkpoint is written and read by `torch.distributed.checkpoint`, as safetensors: each rank writes what it holds, and
any number of ranks reads what it needs. Nothing in it is a pickle. `checkpoint.json` has the checksum of every file;
no file is read before it has been compared.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from unmask import hub
from unmask.errors import UserError
from unmask.training.parallel import local
from unmask.training.ranks import ALONE, Ranks

logger = logging.getLogger("unmask")

MANIFEST = "checkpoint.json"
#: What the names of tensors begin with: weights, moments, the moving average of the weights.
MODEL, OPTIMISER, AVERAGE = "model.", "optimiser.", "average."

#: What the system says where nothing more can be written: disk full, quota spent, file size limited.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def state_of(
    model: nn.Module, optimiser: torch.optim.Optimizer, average: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The state of a run by name, where it lies: what has two names (an ELECTRA pair shares embeddings) once.

    It is the weights, the optimiser's moments, perhaps an average of the weights; with one integer, as everything else
    is a function of the step.

    Args:
        average: the moving average of the weights, by parameter name.
    """
    kept = _weights(model)
    for name, parameter in _names(model, optimiser).items():
        for key, value in optimiser.state.get(parameter, {}).items():
            kept[f"{OPTIMISER}{name}/{key}"] = value
    return kept | {AVERAGE + name: tensor for name, tensor in (average or {}).items()}


def save_checkpoint(
    directory: Path,
    step: int,
    tensors: dict[str, Tensor],
    *,
    keep: int,
    keep_every: int = 0,
    ranks: Ranks = ALONE,
) -> None:
    """Write `directory/step-N` beside and rename it, then drop the old ones.

    Args:
        tensors: of `state_of`, or copies of them.
        keep: how many of the newest stay.
        keep_every: those at multiples of so many steps stay too; 0: none.
        ranks: all of them write, into one directory that all see.

    Raises:
        UserError: there is no room; the checkpoints that were there are as they were.
    """
    temporary = directory
    try:
        with ranks.together():
            if ranks.is_first:
                directory.mkdir(parents=True, exist_ok=True)
                name = f".{_path(directory, step).name}."
                temporary = Path(tempfile.mkdtemp(dir=directory, prefix=name, suffix=".part"))
        temporary = ranks.same(temporary)
        _write(temporary, tensors, ranks)
        checksums: dict[str, str] = {}
        for some in ranks.gathered(_checksums(sorted(temporary.iterdir())[ranks.number :: ranks.count])):
            checksums |= some
        with ranks.together():
            if ranks.is_first:
                hub.write_atomically(temporary / MANIFEST, _manifest(step, checksums))
                hub.replace_directory(temporary, _path(directory, step))
                for old in _steps(directory)[:-keep]:
                    if not (keep_every and _step_of(old) % keep_every == 0):
                        shutil.rmtree(old)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        newest = newest_step(directory)
        outcome = f"continues from step {newest}" if newest else "starts again"
        raise UserError(
            f"no room for the checkpoint of step {step} in {directory} ({error.strerror}): free some space there, "
            f"then the same command {outcome}"
        ) from None
    finally:
        if ranks.is_first and temporary != directory:
            shutil.rmtree(temporary, ignore_errors=True)


def load_newest(
    directory: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: Mapping[str, Tensor] | None = None,
    *,
    ranks: Ranks = ALONE,
) -> int:
    """Load the newest whole checkpoint in place and return its step, 0 where there is none.

    A damaged checkpoint is named in a warning and passed over. It may have been written by any number of ranks.
    """
    for path in _whole(directory, ranks):
        _start_state(optimiser)
        written = _read(path, state_of(model, optimiser, average), ranks)
        # A parameter that never had a gradient has no moments yet.
        for name, parameter in _names(model, optimiser).items():
            if not any(key.startswith(f"{OPTIMISER}{name}/") for key in written):
                optimiser.state.pop(parameter, None)
        return _step_of(path)
    return 0


def load_mean(directory: Path, model: nn.Module, count: int, *, ranks: Ranks = ALONE) -> list[int]:
    """Give the model the mean of the weights of the newest whole checkpoints, in place (arXiv 1706.03762, 6.1).

    Args:
        count: how many; fewer where there are not so many.

    Returns:
        Their steps, the newest first.

    Raises:
        UserError: there is none.
    """
    sums: list[Tensor] = []
    steps: list[int] = []
    parameters = [local(parameter.detach()) for parameter in model.parameters()]
    for path in _whole(directory, ranks):
        if len(steps) == count:
            break
        _read(path, _weights(model), ranks)
        # In float64: the mean does not depend on how many there are of equal ones.
        values = [parameter.double() for parameter in parameters]
        sums = values if not sums else list(torch._foreach_add(sums, values))
        steps.append(_step_of(path))
    if not steps:
        raise UserError(f"{directory} has no whole checkpoint to average")
    for parameter, total in zip(parameters, sums, strict=True):
        parameter.copy_(total / len(steps))
    return steps


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, whole, by their names in it (`MODEL` and the like before them).

    Raises:
        UserError: it is damaged.
    """
    fault = _fault(path, ALONE)
    if fault is not None:
        raise UserError(fault)
    tensors = {
        name: torch.empty(kept.size, dtype=kept.properties.dtype) for name, kept in _written(path).items()
    }
    _read(path, tensors, ALONE)
    return tensors


def remove_leftovers(directory: Path) -> None:
    """Delete what killed writes left behind (`hub.atomic_directory` and its like), and nothing else."""
    for pattern in (".*.part", ".*.old"):
        for path in directory.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def newest_step(directory: Path) -> int:
    """Of the checkpoints in a directory, whole or not; 0 where there is none."""
    return max(map(_step_of, _steps(directory)), default=0)


def _path(directory: Path, step: int) -> Path:
    return directory / f"step-{step:08d}"


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _steps(directory: Path) -> list[Path]:
    """The checkpoints in a directory, oldest first."""
    found = [path for path in directory.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
    return sorted(found, key=_step_of)


def _manifest(step: int, checksums: Mapping[str, str]) -> str:
    """The text of a manifest, which vouches for itself too."""
    content = {"step": step, "sha256": dict(checksums)}
    whole = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps(content | {"checksum": whole}, indent=2, sort_keys=True) + "\n"


def _whole(directory: Path, ranks: Ranks) -> Iterator[Path]:
    """The whole checkpoints in a directory, the newest first; damaged ones are named."""
    for path in reversed(ranks.same(_steps(directory))):
        faults = [fault for fault in ranks.gathered(_fault(path, ranks)) if fault is not None]
        if faults:
            logger.warning("passing over a damaged checkpoint: %s", faults[0])
        else:
            yield path


def _fault(path: Path, ranks: Ranks) -> str | None:
    """What is wrong with a checkpoint, as far as this rank's share of its files goes; None where nothing is."""
    try:
        manifest = hub.read_json(path / MANIFEST)
        step, checksums = manifest["step"], manifest["sha256"]
        if (path / MANIFEST).read_bytes() != _manifest(step, checksums).encode() or step != _step_of(path):
            return f"{path / MANIFEST} is not what was written: its checksum differs"
        for name in sorted(checksums)[ranks.number :: ranks.count]:
            if _sha256(path / name) != checksums[name]:
                return f"{path / name} is not what was written: its checksum differs"
        if {each.name for each in path.iterdir()} != {MANIFEST, *checksums}:
            return f"{path} has files that were not written with it"
    except UserError as error:
        return str(error)
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        return f"{path / MANIFEST} is incomplete: {error!r}"
    return None


def _checksums(files: list[Path]) -> dict[str, str]:
    return {file.name: _sha256(file) for file in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- tensors --------------------------------------------------------------------------------------------


def _weights(model: nn.Module) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            kept[MODEL + name] = tensor.detach()
    return kept


def _names(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    """The optimiser's parameters by their names in the model."""
    owned = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in owned}


def _start_state(optimiser: torch.optim.Optimizer) -> None:
    """Let an optimiser make its state, of whatever tensors it keeps, by a step that changes nothing."""
    rates = [group["lr"] for group in optimiser.param_groups]
    for group in optimiser.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = rate


def _written(path: Path) -> Mapping[str, Any]:
    """What a checkpoint holds: name → size and type."""
    found: Any = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    return found


def _read(path: Path, tensors: dict[str, Tensor], ranks: Ranks) -> Mapping[str, Any]:
    """Fill those of the tensors that a checkpoint holds, each rank its own shards of them; gives `_written`."""
    written = _written(path)
    with without_remark():
        load(
            {name: tensor for name, tensor in tensors.items() if name in written},
            storage_reader=HuggingFaceStorageReader(str(path)),
            no_dist=ranks.count == 1,
        )
    return written


def _write(directory: Path, tensors: dict[str, Tensor], ranks: Ranks) -> None:
    """Raises:
    OSError: whatever the system says, on any rank.
    """
    writer = HuggingFaceStorageWriter(str(directory), save_distributed=True)
    try:
        with without_remark():
            save(tensors, storage_writer=writer, process_group=ranks.group, no_dist=ranks.count == 1)
    except CheckpointException as failed:
        for error, _ in failed.failures.values():
            if isinstance(error, OSError):
                raise error from None
        raise


@contextmanager
def without_remark() -> Iterator[None]:
    """Without the remark that a single process is meant to be one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
