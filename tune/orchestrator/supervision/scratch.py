"""Make a folder for temporary files on this node, and remove those of processes that were killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "tune-scratch-"


def make_scratch() -> Path:
    """Return a new folder, marked as in use until this process and its forks have ended or removed it.

    First removes folders that are no longer in use: the processes that were to remove them were killed.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        _remove_unused(left)
    while True:
        made = Path(tempfile.mkdtemp(prefix=_PREFIX))
        try:
            fcntl.flock(os.open(made, os.O_RDONLY | os.O_DIRECTORY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, FileNotFoundError):  # taken for unused before it was locked
            continue
        except OSError:  # no locks here: nobody can take it for unused
            return made
        if made.exists():
            return made


def _remove_unused(folder: Path) -> None:
    """Remove `folder` unless a process uses it."""
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # another user's, or gone
        return
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # in use, or no locks here
        return
    finally:
        os.close(opened)
