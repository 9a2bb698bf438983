"""Checkpoints of a run: written whole or not at all, verified before they are trusted."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unmask import hub
from unmask.errors import UserError

logger = logging.getLogger("unmask")

MODEL = "model.safetensors"
OPTIMISER = "optimiser.safetensors"
AVERAGE = "average.safetensors"
MANIFEST = "checkpoint.json"

#: What the system says where nothing more can be written: disk full, quota spent, file size limited.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def save_checkpoint(
    directory: Path,
    step: int,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    *,
    keep: int,
    keep_every: int = 0,
    average: Mapping[str, Tensor] | None = None,
) -> None:
    """Write `directory/step-N` beside and rename it, then drop the old ones.

    The state of a run is its weights, the optimiser's moments, perhaps an average of the weights, and one integer:
    everything else is a function of the step.

    Args:
        keep: how many of the newest stay.
        keep_every: those at multiples of so many steps stay too; 0: none.
        average: the moving average of the weights, by parameter name.

    Raises:
        UserError: there is no room; the checkpoints that were there are as they were.
    """
    try:
        with hub.atomic_directory(_path(directory, step)) as temporary:
            files = {MODEL: _distinct(dict(model.state_dict())), OPTIMISER: _optimiser_tensors(optimiser)}
            if average is not None:
                files[AVERAGE] = dict(average)
            for name, tensors in files.items():
                hub.write_weights(temporary / name, tensors)
            checksums = {name: _sha256(temporary / name) for name in files}
            hub.write_atomically(temporary / MANIFEST, _manifest(step, checksums))
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        newest = newest_step(directory)
        outcome = f"continues from step {newest}" if newest else "starts again"
        raise UserError(
            f"no room for the checkpoint of step {step} in {directory} ({error.strerror}): free some space there, "
            f"then the same command {outcome}"
        ) from None
    for old in _steps(directory)[:-keep]:
        if not (keep_every and _step_of(old) % keep_every == 0):
            shutil.rmtree(old)


def load_newest(
    directory: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: Mapping[str, Tensor] | None = None,
) -> int:
    """Load the newest whole checkpoint in place and return its step, 0 where there is none.

    A damaged checkpoint is named in a warning and passed over.
    """
    for path in reversed(_steps(directory)):
        try:
            step = _verified_step(path)
        except UserError as error:
            logger.warning("passing over a damaged checkpoint: %s", error)
            continue
        model.load_state_dict(_shared(model, hub.read_tensors(path / MODEL)))
        _restore_optimiser(optimiser, hub.read_tensors(path / OPTIMISER))
        if average is not None:
            for name, tensor in hub.read_tensors(path / AVERAGE).items():
                average[name].copy_(tensor)
        return step
    return 0


def load_mean(directory: Path, model: nn.Module, count: int) -> list[int]:
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
    for path in reversed(_steps(directory)):
        if len(steps) == count:
            break
        try:
            step = _verified_step(path)
        except UserError as error:
            logger.warning("passing over a damaged checkpoint: %s", error)
            continue
        model.load_state_dict(_shared(model, hub.read_tensors(path / MODEL)))
        with torch.no_grad():
            # In float64: the mean does not depend on how many there are of equal ones.
            values = [parameter.double() for parameter in model.parameters()]
            sums = values if not sums else list(torch._foreach_add(sums, values))
        steps.append(step)
    if not steps:
        raise UserError(f"{directory} has no whole checkpoint to average")
    with torch.no_grad():
        for parameter, total in zip(model.parameters(), sums, strict=True):
            parameter.copy_(total / len(steps))
    return steps


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


def _verified_step(path: Path) -> int:
    manifest = hub.read_json(path / MANIFEST)
    try:
        step, checksums = manifest["step"], manifest["sha256"]
        if (path / MANIFEST).read_bytes() != _manifest(step, checksums).encode() or step != _step_of(path):
            raise UserError(f"{path / MANIFEST} is not what was written: its checksum differs")
        for name, checksum in checksums.items():
            if _sha256(path / name) != checksum:
                raise UserError(f"{path / name} is not what was written: its checksum differs")
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise UserError(f"{path / MANIFEST} is incomplete: {error!r}") from None
    return int(step)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _distinct(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without second names of the same tensor, which safetensors refuses (an ELECTRA pair shares some)."""
    seen: set[int] = set()
    kept = {}
    for name, tensor in state.items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            kept[name] = tensor
    return kept


def _shared(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `_distinct`: every name that the model knows."""
    first_name: dict[int, str] = {}
    full = {}
    for name, tensor in model.state_dict().items():
        full[name] = state[first_name.setdefault(tensor.data_ptr(), name)]
    return full


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as flat tensors: `parameter number.name`. Its settings come from the recipe."""
    return {
        f"{number}.{name}": value
        for number, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
    }


def _restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
