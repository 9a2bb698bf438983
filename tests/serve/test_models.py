"""What a model directory may not hold."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from unmask.cli import serve as cli_serve
from unmask.errors import UserError

models = pytest.importorskip("unmask.serve.models", reason="needs the extra serve")


class Code:
    """A pickle that runs code where it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.fixture
def copy(directories: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(directories["t5"], tmp_path / "copy"))


def refusal(place: Path) -> str:
    with pytest.raises(UserError) as caught:
        models.load("copy", str(place), None, torch.device("cpu"))
    return str(caught.value)


def test_the_first_request_waits_for_no_compiler(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    step = models.ContinuousBatch.step
    monkeypatch.setattr(
        models.ContinuousBatch, "step", lambda batch: written.append(len(batch)) or step(batch)
    )
    models.load("copy", str(copy), None, torch.device("cpu"))
    assert written == [1, 2], "a row alone, and one that joins it"


def test_names(tmp_path: Path) -> None:
    names = cli_serve._named([str(tmp_path / "a" / "model"), str(tmp_path / "b"), "c=google/t5"])
    assert names == {"a": str(tmp_path / "a" / "model"), "b": str(tmp_path / "b"), "c": "google/t5"}


@pytest.mark.parametrize("beside", [(), ("other.safetensors",)])
def test_pickles_are_not_opened(copy: Path, tmp_path: Path, beside: tuple[str, ...]) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(Code(tmp_path / "mark")))
    for name in beside:
        (copy / name).touch()
    assert "has no model.safetensors: weights in other files are not opened" in refusal(copy)
    assert not (tmp_path / "mark").exists()


def test_a_pickle_under_another_name(copy: Path, tmp_path: Path) -> None:
    (copy / "model.safetensors").write_bytes(pickle.dumps(Code(tmp_path / "mark")))
    assert "cannot be read" in refusal(copy)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("shard", ["../t5/model.safetensors", "/etc/passwd"])
def test_shards_do_not_leave_the_directory(copy: Path, shard: str) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"shared.weight": shard}}))
    assert "outside its directory" in refusal(copy)


def test_adapters_lead_nowhere(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "../../elsewhere"}))
    assert "is an adapter: write it as a model first" in refusal(copy)


def test_code_is_not_run(copy: Path, tmp_path: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Model"}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "evil.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\nModel = None\n")
    assert models.load("copy", str(copy), None, torch.device("cpu")).family == "t5"
    assert not (tmp_path / "mark").exists()


def test_tasks_that_are_not_served(copy: Path, tmp_path: Path) -> None:
    task = tmp_path / "pairs.toml"
    task.write_text('name = "p"\nkind = "minimal-pairs"\nsource = ["good", "bad"]\n')
    with pytest.raises(UserError, match="only classification"):
        models.load("copy", str(copy), str(task), torch.device("cpu"))
