"""One process a directory, also where others are killed or the directory is deleted."""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from unmask import locks
from unmask.errors import UserError
from unmask.locks import LOCK, clear, locked, occupied


def test_a_second_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b", "the corpus"):
        with (
            pytest.raises(UserError, match="another process is at work on the corpus: wait"),
            locked(tmp_path / "a" / "b", "the corpus"),
        ):
            pass
        with locked(tmp_path / "other", "others"):
            pass
    with locked(tmp_path / "a" / "b", "the corpus"):
        pass


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from unmask.locks import locked\n"
        "with locked(Path(sys.argv[1]), 'it'):\n    print('locked', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(UserError, match="another process"), locked(tmp_path, "it"):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with locked(tmp_path, "it"):
        pass


def test_a_lock_on_what_was_deleted_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take = locks.fcntl.flock
    times = 0

    def flock(descriptor: int, operation: int) -> None:
        nonlocal times
        times += 1
        if times == 1:  # its holder was just done with the directory
            shutil.rmtree(tmp_path / "work")
        take(descriptor, operation)

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with locked(tmp_path / "work", "it"):
        assert times == 2
        assert (tmp_path / "work" / LOCK).exists()


def test_file_systems_without_locks_are_worked_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> NoReturn:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(locks.fcntl, "flock", none)
    with locked(tmp_path, "it"):
        pass


def test_occupied_leaves_no_trace(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with occupied(run):
        with pytest.raises(UserError, match=f"another process is at work on {run}: wait"), occupied(run):
            pass
        assert (run / LOCK).exists(), "the one refused has taken nothing away"
    assert not run.exists()
    with occupied(run):
        (run / "result").touch()
    assert [path.name for path in run.iterdir()] == ["result"]


def test_clear_leaves_the_lock(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    for name in ("file", "kept"):
        (tmp_path / name).touch()
    with locked(tmp_path, "it"):
        clear(tmp_path, keep=["kept"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", LOCK]
