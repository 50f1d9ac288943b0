"""A folder for temporary files on this node, and an end for those of processes that were killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from tune.core.locks import try_lock

_PREFIX = "tune-scratch-"


def make_scratch() -> Path:
    """A new folder, known as in use until this process and its forks have ended or removed it.

    First removes those that are not in use any more: whoever was to remove them was killed.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        _remove_unused(left)
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


def _remove_unused(folder: Path) -> None:
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
