"""Make a folder for temporary files on this node, and remove those of processes that were killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from tune.core.locks import try_lock

_PREFIX = "tune-scratch-"


def make_scratch() -> Path:
    """Return a new folder, marked as in use until this process and its forks have ended or removed it.

    First removes folders that are no longer in use: the processes that were to remove them were killed.
    """
    remove_unused_scratch()
    while True:
        made = Path(tempfile.mkdtemp(prefix=_PREFIX))
        try:
            locked = try_lock(os.open(made, os.O_RDONLY | os.O_DIRECTORY))
        except FileNotFoundError:
            locked = False
        except OSError:  # no locks here: nobody can take it for unused
            return made
        if locked and made.exists():  # else taken for unused before it was locked
            return made


def remove_unused_scratch() -> None:
    """Remove folders that no process uses, on local disk and in memory, where etcd has its data."""
    for root in (tempfile.gettempdir(), "/dev/shm"):
        for left in Path(root).glob(f"{_PREFIX}*"):
            _remove_unused(left)


def _remove_unused(folder: Path) -> None:
    """Remove `folder` unless a process uses it."""
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # another user's, or gone
        return
    try:
        if try_lock(opened):
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # no locks here
        return
    finally:
        os.close(opened)
