"""A file of results that grows while a job runs, survives a kill, and appears under its name when whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from unmask import hub
from unmask.errors import UserError
from unmask.locks import clear, locked

SETTINGS = "settings.json"
RESULTS = "results"


class ResultsFile:
    """Lines of results, written beside (`NAME.partial/`) and renamed to their name by `finish`.

    A job that begins again with the same settings goes on behind the last whole window of lines.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, anew: bool = False) -> None:
        """Args:
        path: where the whole file will be.
        settings: JSON values that say what the results are of.
        anew: never continue.
        """
        self.path, self.partial = path, path.with_name(f"{path.name}.partial")
        self._settings, self._anew = settings, anew
        self._file: IO[bytes] | None = None
        self._lock = ExitStack()

    def __enter__(self) -> Self:
        """Begin, or continue.

        Raises:
            UserError: the directory is not there, `path` is one, a job with other settings was begun, or another
                process is at work on the file.
        """
        check_results_path(self.path)
        with self._lock as lock:
            lock.enter_context(locked(self.partial, str(self.path)))
            self._begin()
            self._lock = lock.pop_all()
        return self

    def _begin(self) -> None:
        if (self.partial / SETTINGS).is_file() and not self._anew:
            self._check_settings()
        else:
            # Nothing was promised before the settings were written.
            clear(self.partial)
            (self.partial / RESULTS).touch()
            hub.write_json(self.partial / SETTINGS, self._settings)
        if not self.is_finished:
            self._file = (self.partial / RESULTS).open("r+b")

    @property
    def is_finished(self) -> bool:
        """Results are there, and only what was beside them is to be cleared away."""
        return self._file is None and not (self.partial / RESULTS).exists()

    def _check_settings(self) -> None:
        differing = hub.differences(hub.read_json(self.partial / SETTINGS), self._settings)
        if differing:
            raise UserError(
                f"{self.partial} was begun with other settings ({differing}): give those again to continue, "
                f"or delete {self.partial} to start over"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        self._lock.close()

    def lines(self) -> int:
        """Whole lines that are there."""
        assert self._file is not None
        self._file.seek(0)
        return sum(line.endswith(b"\n") for line in self._file)

    def keep(self, lines: int) -> None:
        """Go on behind the first so many lines."""
        assert self._file is not None
        self._file.seek(0)
        for _ in range(lines):
            self._file.readline()
        self._file.truncate()

    def write(self, lines: Iterable[str]) -> None:
        """Append lines, and see to it that they are on the disk."""
        assert self._file is not None
        self._file.write("".join(f"{line}\n" for line in lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self) -> None:
        """Give the results their name."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if not self.is_finished:
            (self.partial / RESULTS).replace(self.path)
        shutil.rmtree(self.partial)


def check_results_path(path: Path) -> None:
    """Raises:
    UserError: no file can be written there.
    """
    if not path.parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no directory {path.parent}; make it first")
    if path.is_dir():
        raise UserError(f"{path} is a directory: name a file in it")
