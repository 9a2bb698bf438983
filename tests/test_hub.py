"""Finding models and writing files that a crash cannot leave half done."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from unmask import hub
from unmask.errors import UserError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network: nothing listens at the endpoint."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def fill(cache: Path, name: str, files: dict[str, bytes]) -> Path:
    """What huggingface_hub leaves behind after a download."""
    home = cache / f"models--{name.replace('/', '--')}"
    snapshot = home / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("a" * 40)
    (home / "blobs").mkdir()
    for place, (file, content) in enumerate(files.items()):
        blob = home / "blobs" / f"{place:040x}"
        blob.write_bytes(content)
        (snapshot / file).symlink_to(blob)
    return snapshot


WHOLE = {"config.json": b"{}", "model.safetensors": b"", "tokenizer.json": b"{}"}


def test_a_directory_comes_first(cache: Path, tmp_path: Path) -> None:
    fill(cache, "t5-small", WHOLE)
    (tmp_path / "t5-small").mkdir()
    assert hub.find_model("t5-small") == Path("t5-small")


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert hub.find_model("~/model") == tmp_path / "model"


@pytest.mark.parametrize("name", ["t5-small", "google/t5-v1_1-small"])
def test_a_cached_name_needs_no_network(cache: Path, name: str) -> None:
    snapshot = fill(cache, name, WHOLE)
    assert hub.find_model(name) == snapshot


@pytest.mark.parametrize("legacy", [True, False])
def test_an_index_without_its_shards_is_no_model(cache: Path, legacy: bool) -> None:
    ends = (".bin.index.json", ".bin") if legacy else (".safetensors.index.json", ".safetensors")
    index, shard = ("pytorch_model" if legacy else "model") + ends[0], "part-00001-of-00001" + ends[1]
    files = {"config.json": b"{}", index: b'{"weight_map": {"shared.weight": "%s"}}' % shard.encode()}
    snapshot = fill(cache, "t5-small", files)
    assert not hub._has_weights(snapshot)
    (snapshot / shard).touch()
    assert hub._has_weights(snapshot)


def test_a_partial_cache_is_better_than_nothing(cache: Path) -> None:
    """A tokenizer that was once fetched alone loads without network, as it did on that day."""
    snapshot = fill(cache, "t5-small", {"tokenizer.json": b"{}"})
    assert hub.find_model("t5-small") == snapshot


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    with pytest.raises(UserError, match="is a file"):
        hub.find_model(tmp_path / "model.bin")


@pytest.mark.parametrize("offline", [True, False])
def test_neither_network_nor_cache(cache: Path, offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    begin = time.perf_counter()
    with pytest.raises(UserError) as caught:
        hub.find_model("google/t5-none")
    assert time.perf_counter() - begin < 20
    message = str(caught.value)
    for part in ("google/t5-none", str(Path.cwd() / "google/t5-none"), str(cache), "127.0.0.1"):
        assert part in message
    assert "\n" not in message


def test_the_environment_alone_sets_offline(tmp_path: Path) -> None:
    """As a user meets it: a fresh process, HF_HUB_OFFLINE=1."""
    code = "from unmask.hub import find_model; find_model('t5-none')"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("unmask.errors.UserError: no model 't5-none': looked for")


@pytest.mark.parametrize("name", ["no such/model/at all", "../elsewhere", "a b"])
def test_what_can_be_no_hub_name(cache: Path, name: str) -> None:
    with pytest.raises(UserError, match="looked for a directory"):
        hub.find_model(name)


def test_an_empty_name_is_not_the_working_directory() -> None:
    with pytest.raises(UserError, match="empty"):
        hub.find_model("")


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> object:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_permissions_are_those_of_any_new_file(tmp_path: Path, umask: int) -> None:
    """The temporary file is private; what it becomes must not be."""
    hub.write_atomically(tmp_path / "new" / "text", "ä")
    assert (tmp_path / "new" / "text").read_bytes() == "ä".encode()
    assert mode(tmp_path / "new" / "text") == 0o666 & ~umask
    with hub.atomic_directory(tmp_path / "folder") as folder:
        (folder / "text").write_text("a")
    assert mode(tmp_path / "folder") == 0o777 & ~umask
    assert mode(tmp_path / "folder" / "text") == 0o666 & ~umask


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    hub.write_atomically(path, "old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    for step in ("write_bytes", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(Path, step, fail)
            with pytest.raises(OSError, match="disk full"):
                hub.write_atomically(path, "new")
        assert path.read_text() == "old"
        assert names(tmp_path) == ["file"]


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    there = tmp_path / "there"
    for written in (hub.atomic_file, hub.atomic_directory):
        with pytest.raises(OSError, match=f"No space left on device: '{there}'"), written(there):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


def test_a_failed_weights_file_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    hub.write_weights(path, {"a": torch.ones(2)})
    before = path.read_bytes()
    with pytest.raises(Exception):  # noqa: B017 - safetensors' own complaint about what is no tensor
        hub.write_weights(path, {"a": torch.ones(2), "b": torch.ones(2, device="meta")})
    assert path.read_bytes() == before
    assert names(tmp_path) == ["model.safetensors"]


def test_a_directory_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with hub.atomic_directory(path) as folder:
        (folder / "old").touch()
        assert not path.exists()
    with pytest.raises(RuntimeError), hub.atomic_directory(path) as folder:
        (folder / "new").touch()
        raise RuntimeError
    assert names(path) == ["old"]
    with hub.atomic_directory(path) as folder:
        (folder / "new").touch()
    assert names(path) == ["new"]
    assert names(tmp_path) == ["model"]


def test_json_is_readable_and_sorted(tmp_path: Path) -> None:
    hub.write_json(tmp_path / "config.json", {"b": "ü", "a": 1})
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    assert text.index('"a"') < text.index('"b"')
    assert "ü" in text
    assert hub.read_json(tmp_path / "config.json") == {"a": 1, "b": "ü"}


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b""])
def test_what_is_no_json_object(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json") as caught:
        hub.read_json(tmp_path / "config.json")
    assert "\n" not in str(caught.value)


def test_tensors_that_are_views_are_written(tmp_path: Path) -> None:
    whole = torch.arange(6.0).view(2, 3)
    hub.write_weights(tmp_path / "model.safetensors", {"t": whole.t(), "whole": whole})
    back = hub.read_weights(tmp_path)
    assert torch.equal(back["t"], whole.t())
    assert torch.equal(back["whole"], whole)
