"""Lock a file, a folder or a name on this machine for one process at a time."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tune.core.files import MOVE_BACK, no_link, regular_file, write_error
from tune.core.host_lease import host_lease, owner_elsewhere
from tune.errors import ConfigurationError, ResumableError


def try_lock(file: int | IO[str], *, shared: bool = False) -> bool:
    """Lock an open file or folder with flock(2); return False where another process holds a lock on it.

    The lock lasts until every descriptor of this opening is closed, forks included. A shared lock is refused
    by an exclusive one only. Raises OSError where the file system has no locks.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class HeldLock:
    """Hold the locked file `path`, whose opening `file` is."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        self._path, self._file = path, file
        self._folder = _identity(path.parent.stat())

    def require(self) -> None:
        """Make sure that the lock is held, so that no other process can take it.

        A lock file that somebody removed is made and locked again. Raises ResumableError where its folder is
        no longer there, or another process has made the file meanwhile.
        """
        try:
            if _identity(self._path.parent.stat()) != self._folder:
                raise self._gone("another folder is there")
            try:
                same = _identity(self._path.stat(follow_symlinks=False)) == _identity(
                    os.fstat(self._file.fileno())
                )
            except FileNotFoundError:
                same = self._make_again()
        except OSError as error:
            raise self._gone(error.strerror or str(error)) from error
        if not same:
            raise ResumableError(
                f"{self._path}: was removed while this process held it, and is another file now; expected it "
                "to be left alone. Another process may run the study: this one has stopped. Wait for it, and "
                "run the same command again: what is on record is reused."
            )

    def release(self) -> None:
        """Release the lock."""
        self._file.close()

    def _make_again(self) -> bool:
        """Make and lock the file that somebody removed; return False where another process was faster."""
        try:
            file = os.fdopen(no_link(str(self._path), os.O_RDWR | os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        if not try_lock(file):
            file.close()
            return False
        self._file.close()
        self._file = file
        return True

    def _gone(self, found: str) -> ResumableError:
        """Return the error for a folder that is not there."""
        return ResumableError(
            f"{self._path.parent}: was moved or removed while this process used it ({found}); expected it to "
            f"stay where it is. {MOVE_BACK}"
        )


def _identity(status: os.stat_result) -> tuple[int, int]:
    """Return what tells a file or folder from all others."""
    return status.st_dev, status.st_ino


@contextmanager
def lock_file(path: Path, in_use: str) -> Iterator[HeldLock]:
    """Hold the lock file `path` as long as the block runs; make it and its folder where they are missing.

    Yields the lock, which tells whether it is still held. Raises ConfigurationError with the message `in_use`
    where another process holds it, on this host or on another one (tune.core.host_lease), and
    ConfigurationError where the file cannot be written or the file system has no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = no_link(str(path), os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise write_error(path, error) from error
    file = os.fdopen(descriptor)
    held = HeldLock(path, file)
    try:
        try:
            locked = try_lock(file)
        except OSError as error:
            raise _unsupported(path, error) from error
        if not locked:
            raise ConfigurationError(in_use)
        if owner := owner_elsewhere(path):
            raise ConfigurationError(f"{in_use} It is {owner}.")
        with host_lease(path):
            yield held
    finally:
        held.release()


def is_file_locked(path: Path) -> bool:
    """Return whether a process holds the lock file `path`; False where there is no such file.

    Raises ConfigurationError where the file system has no locks.
    """
    try:
        with open(path, opener=regular_file) as file:
            return not try_lock(file, shared=True)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unsupported(path, error) from error


def lock_name(name: str) -> socket.socket:
    """Take `name` on this machine: a bound abstract socket, free again once every holder closed it or ended.

    A forked process that inherits the descriptor holds the name, too. An abstract socket has the scope of a
    TCP port, one network namespace. Raises OSError where another process holds the name. Source: unix(7).
    """
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        holder.bind(f"\0{name}")
    except OSError:
        holder.close()
        raise
    return holder


def _unsupported(path: Path, error: OSError) -> ConfigurationError:
    """Return the error for a file system without locks."""
    return ConfigurationError(
        f"{path}: cannot be locked ({error.strerror or error}); expected a file system with flock(2), by "
        "which a study is run by one process alone. Have it mounted with locks (Lustre: -o flock; NFS: with "
        "its lock service), or name a folder elsewhere with runs_dir=..."
    )
