"""Where an export goes: a new directory, or in the place of an earlier export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from unmask import hub
from unmask.errors import UserError


@contextmanager
def new_directory(path: Path, *, overwrite: bool, signs: Sequence[str]) -> Iterator[Path]:
    """A directory to write to that takes the name `path` when the block ends well.

    Args:
        overwrite: replace an earlier export.
        signs: files that an earlier export of this kind has: a directory that lacks one is not replaced.

    Raises:
        UserError: see `check_place`.
    """
    check_place(path, overwrite=overwrite, signs=signs)
    with hub.atomic_directory(path) as directory:
        yield directory


def check_place(path: Path, *, overwrite: bool, signs: Sequence[str]) -> None:
    """Refuse a place where something is that must not be lost.

    Raises:
        UserError: a file, or a directory that is not to be replaced.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file: give a directory with --out")
    if not path.is_dir() or not any(path.iterdir()):
        return
    absent = [name for name in signs if not (path / name).is_file()]
    if absent:
        raise UserError(
            f"{path} is there and holds something else than an earlier export (it has no {absent[0]}): "
            "give another directory with --out"
        )
    if not overwrite:
        raise UserError(f"{path} holds an earlier export: replace it with --overwrite, or give another --out")
