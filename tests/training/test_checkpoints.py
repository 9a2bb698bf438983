"""A checkpoint brings everything back, or leaves what was there."""

from __future__ import annotations

import errno
import logging
import resource
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import HealthCheck, given, strategies
from hypothesis import settings as hypothesis_settings
from toys import Toy, batches, loss_of

from unmask import hub
from unmask.errors import UserError
from unmask.training import checkpoints
from unmask.training.checkpoints import (
    MODEL,
    load_newest,
    read_checkpoint,
    remove_leftovers,
    save_checkpoint,
    state_of,
)
from unmask.training.optimisers import make_optimiser
from unmask.training.settings import OptimiserName

NAMES = get_args(OptimiserName)
#: What a single process writes.
FILE = "shard-00001-model-00001-of-00001.safetensors"


def trained(name: OptimiserName, steps: int = 3) -> tuple[Toy, torch.optim.Optimizer]:
    model = Toy()
    optimiser = make_optimiser(name, model.named_parameters(), learning_rate=0.1, weight_decay=0.1)
    for step in range(steps):
        optimiser.zero_grad()
        loss_of(model)(batches()[step], step).total.backward()
        optimiser.step()
    return model, optimiser


def assert_same_state(one: torch.optim.Optimizer, other: torch.optim.Optimizer) -> None:
    first, second = one.state_dict()["state"], other.state_dict()["state"]
    assert first.keys() == second.keys()
    assert first
    for number, values in first.items():
        assert values.keys() == second[number].keys()
        for name, tensor in values.items():
            assert tensor.dtype == second[number][name].dtype
            assert torch.equal(tensor, second[number][name]), (number, name)


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back(name: OptimiserName, tmp_path: Path) -> None:
    model, optimiser = trained(name)
    save_checkpoint(tmp_path, 3, state_of(model, optimiser), keep=2)
    again, its_optimiser = trained(name, steps=0)
    assert load_newest(tmp_path, again, its_optimiser) == 3
    for one, other in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert_same_state(optimiser, its_optimiser)
    assert again.one.weight is again.two.weight, "what was shared still is"
    # And the next step is the same one.
    for learner, its in ((model, optimiser), (again, its_optimiser)):
        torch.manual_seed(5)
        its.zero_grad()
        loss_of(learner)(batches()[3], 3).total.backward()
        its.step()
    assert torch.equal(model.one.weight, again.one.weight)


def test_shared_tensors_are_written_once(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, state_of(*trained("adamw")), keep=2)
    written = [name for name in read_checkpoint(tmp_path / "step-00000001") if name.startswith(MODEL)]
    assert sorted(written) == ["model.layers.0.bias", "model.layers.0.weight", "model.layers.1.bias"]


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        save_checkpoint(tmp_path, step, state_of(*trained("adamw")), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000010"]


def test_none_is_step_0(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "none", *trained("adamw")) == 0


@pytest.mark.parametrize("file", [FILE, "checkpoint.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_one_is_named_and_passed_over(
    file: str, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, state_of(*trained("adamw", step)), keep=2)
    path = tmp_path / "step-00000002" / file
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-20] if damage == "cut" else b"\x00" + content[1:])
    model, optimiser = trained("adamw", 0)
    with caplog.at_level(logging.WARNING, "unmask"):
        assert load_newest(tmp_path, model, optimiser) == 1
    assert "step-00000002" in caplog.text
    intact = read_checkpoint(tmp_path / "step-00000001")
    assert torch.equal(model.one.weight, intact["model.layers.0.weight"])


@pytest.mark.parametrize("every", [0, 4])
def test_checkpoints_at_multiples_are_kept_too(every: int, tmp_path: Path) -> None:
    for step in range(1, 11):
        save_checkpoint(tmp_path, step, state_of(*trained("adamw", 1)), keep=2, keep_every=every)
    kept = [int(path.name.removeprefix("step-")) for path in sorted(tmp_path.iterdir())]
    assert kept == ([4, 8, 9, 10] if every else [9, 10])


def test_the_average_comes_back(tmp_path: Path) -> None:
    average = {"layers.0.weight": torch.randn(4, 4), "layers.1.bias": torch.randn(4)}
    save_checkpoint(tmp_path, 1, state_of(*trained("adamw"), average), keep=2)
    again = {name: torch.zeros_like(tensor) for name, tensor in average.items()}
    assert load_newest(tmp_path, *trained("adamw", 0), again) == 1
    assert all(torch.equal(again[name], average[name]) for name in average)


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoints")
    for step in (1, 2):
        model, optimiser = trained("adamw", step)
        average = {name: each.detach().clone() for name, each in model.named_parameters()}
        save_checkpoint(directory, step, state_of(model, optimiser, average), keep=2)
    return directory


@given(data=strategies.data())
@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_byte_that_is_not_what_was_written_is_found(
    data: strategies.DataObject, two_checkpoints: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = [FILE, "checkpoint.json"]
    path = two_checkpoints / "step-00000002" / data.draw(strategies.sampled_from(files))
    content = path.read_bytes()
    place = data.draw(strategies.integers(0, len(content) - 1))
    byte = data.draw(strategies.integers(0, 255).filter(lambda value: value != content[place]))
    path.write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
    try:
        assert load_newest(two_checkpoints, *trained("adamw", 0)) == 1
        assert "step-00000002" in caplog.text
    finally:
        path.write_bytes(content)
    assert load_newest(two_checkpoints, *trained("adamw", 0)) == 2


def test_a_checkpoint_under_another_ones_name_is_none(two_checkpoints: Path, tmp_path: Path) -> None:
    shutil.copytree(two_checkpoints / "step-00000001", tmp_path / "step-00000007")
    assert load_newest(tmp_path, *trained("adamw", 0)) == 0


@pytest.mark.parametrize("file", [FILE, "checkpoint.json"])
@pytest.mark.parametrize("there", [0, 1])
def test_a_full_disk_leaves_what_was_there(
    file: str, there: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(1, there + 1):
        save_checkpoint(tmp_path, step, state_of(*trained("adamw")), keep=1)
    owner, name = (checkpoints, "_write") if file == FILE else (hub, "write_atomically")
    real = getattr(owner, name)

    def full(*arguments: Any) -> None:
        real(*arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(owner, name, full)
    outcome = "continues from step 1" if there else "starts again"
    message = rf"no room for the checkpoint of step 2 in {tmp_path} \(No space left.*same command {outcome}"
    with pytest.raises(UserError, match=message):
        save_checkpoint(tmp_path, 2, state_of(*trained("adamw")), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"][:there]
    assert load_newest(tmp_path, *trained("adamw", 0)) == there


def test_files_that_may_not_grow_leave_what_was_there(tmp_path: Path) -> None:
    """A real error of the system, which safetensors' writer meets, not a simulated one."""
    save_checkpoint(tmp_path, 1, state_of(*trained("adamw")), keep=1)
    sizes = [path.stat().st_size for path in (tmp_path / "step-00000001").glob("*.safetensors")]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(sizes) - 1, before[1]))
    try:
        with pytest.raises(UserError, match=r"no room for the checkpoint of step 2 in .* \(File too large\)"):
            save_checkpoint(tmp_path, 2, state_of(*trained("adamw")), keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert load_newest(tmp_path, *trained("adamw", 0)) == 1


def test_other_errors_of_the_system_are_not_about_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(checkpoints, "_write", refuse)
    with pytest.raises(PermissionError):
        save_checkpoint(tmp_path, 1, state_of(*trained("adamw")), keep=1)


def test_leftovers_alone_are_removed(tmp_path: Path) -> None:
    kept = [".git", ".hidden", "step-00000001", "note.part"]
    for name in kept:
        (tmp_path / name).mkdir()
    (tmp_path / ".step-00000002.abc.part").mkdir()
    (tmp_path / ".step-00000001.old").mkdir()
    (tmp_path / ".run.json.abc.part").write_text("x")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
