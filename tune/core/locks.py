"""Lock a file, a folder or a name on this machine for one process at a time."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tune.core.files import no_link, write_error
from tune.errors import ConfigurationError


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


@contextmanager
def lock_file(path: Path, in_use: str) -> Iterator[None]:
    """Hold the lock file `path` as long as the block runs; make it and its folder where they are missing.

    Raises ConfigurationError with the message `in_use` where another process holds it, and ConfigurationError
    where the file cannot be written or the file system has no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = no_link(str(path), os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise write_error(path, error) from error
    with os.fdopen(descriptor) as file:
        try:
            locked = try_lock(file)
        except OSError as error:
            raise _unsupported(path, error) from error
        if not locked:
            raise ConfigurationError(in_use)
        yield


def is_file_locked(path: Path) -> bool:
    """Return whether a process holds the lock file `path`; False where there is no such file.

    Raises ConfigurationError where the file system has no locks.
    """
    try:
        with path.open() as file:
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
