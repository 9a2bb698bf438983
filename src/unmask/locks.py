"""Locks between processes that would write to the same place."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unmask.errors import UserError

#: Name of a lock's file in the directory that it guards.
LOCK = "lock"
# What file systems say that have no locks: there, nothing is guarded.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def locked(directory: Path, what: str) -> Iterator[None]:
    """Be the only process that works in a directory, which is made if it is not there.

    The lock ends with the process, however that ends; its file may stay. Whoever holds it may delete the directory.

    Args:
        what: the work, for the error.

    Raises:
        UserError: another process is at it.
    """
    descriptor = _take(directory, what)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def occupied(directory: Path) -> Iterator[None]:
    """`locked`, in the results' own directory: nothing is left of the lock, nor of a directory without results.

    Raises:
        UserError: another process is at work there.
    """
    with locked(directory, str(directory)):
        try:
            yield
        finally:
            with suppress(OSError):
                (directory / LOCK).unlink()
                directory.rmdir()  # refused where anything is in it


def _take(directory: Path, what: str) -> int:
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # its holder has just deleted the directory
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
                raise UserError(
                    f"another process is at work on {what}: wait for it, or give another --out"
                ) from None
        # Locked, but perhaps deleted since it was opened: then it guards nothing.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), (directory / LOCK).stat()):
                return descriptor
        os.close(descriptor)


def clear(directory: Path, *, keep: Collection[str] = ()) -> None:
    """Delete what is in a directory that this process has locked, but for the lock, and what is to stay."""
    for path in directory.iterdir():
        if path.name == LOCK or path.name in keep:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
