"""Checkpoints of a run: written whole or not at all, verified before they are trusted."""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unmask import hub
from unmask.errors import UserError

logger = logging.getLogger("unmask")

MODEL = "model.safetensors"
OPTIMISER = "optimiser.safetensors"
MANIFEST = "checkpoint.json"


def save_checkpoint(
    directory: Path, step: int, model: nn.Module, optimiser: torch.optim.Optimizer, *, keep: int
) -> None:
    """Write `directory/step-N` beside and rename it, then drop all but the newest `keep`.

    The state of a run is its weights, the optimiser's moments and one integer: everything else is a function
    of the step.
    """
    path = directory / f"step-{step:08d}"
    with hub.atomic_directory(path) as temporary:
        hub.write_weights(temporary / MODEL, _distinct(dict(model.state_dict())))
        hub.write_weights(temporary / OPTIMISER, _optimiser_tensors(optimiser))
        checksums = {name: _sha256(temporary / name) for name in (MODEL, OPTIMISER)}
        hub.write_json(temporary / MANIFEST, {"step": step, "sha256": checksums})
    for old in _steps(directory)[:-keep]:
        shutil.rmtree(old)


def load_newest(directory: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
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
        return step
    return 0


def remove_leftovers(directory: Path) -> None:
    """Delete what killed writes left behind (`hub.atomic_directory` and its like), and nothing else."""
    for pattern in (".*.part", ".*.old"):
        for path in directory.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _steps(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*")) if directory.is_dir() else []


def _verified_step(path: Path) -> int:
    manifest = hub.read_json(path / MANIFEST)
    try:
        for name, checksum in manifest["sha256"].items():
            if _sha256(path / name) != checksum:
                raise UserError(f"{path / name} is not what was written: its checksum differs")
        return int(manifest["step"])
    except (KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{path / MANIFEST} is incomplete: {error!r}") from None


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
