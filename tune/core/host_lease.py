"""Keep the processes of two hosts apart where locks do not reach from host to host.

A file system may have locks that hold on one host only (Lustre mounted with -o localflock, NFS with
local_lock). So the process that locked a file names its host beside it, in FILE.owner, and touches that again
and again. Another host that finds an owner looks whether it still changes, for which no clock has to be
shared.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tune.core.files import write_text

BEAT_S = 3.0
"""Seconds between two touches of the owner's file."""

WATCH_BEATS = 4.0
"""Beats without a change after which an owner on another host counts as gone. A busy server delays some."""


@contextmanager
def host_lease(locked: Path, beat_s: float = BEAT_S) -> Iterator[None]:
    """Name this process as the owner of the file `locked` until the block ends; touch that every `beat_s`.

    Raises what tune.core.files.write_error returns where the owner's file cannot be written.
    """
    owner, own = _owner_file(locked), f"{socket.gethostname()} {os.getpid()}"
    write_text(owner, f"{own}\n")
    ended = threading.Event()

    def beat() -> None:
        """Show from time to time that this process lives, until the block has ended."""
        while not ended.wait(beat_s):
            with suppress(OSError):  # somebody removed it, or its disk is away for a while
                os.utime(owner, follow_symlinks=False)

    thread = threading.Thread(target=beat, name=f"owner of {locked}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if _read(owner)[0] == own:  # else another process took over what somebody unlocked by hand
            with suppress(OSError):
                owner.unlink()


def owner_elsewhere(locked: Path, beat_s: float = BEAT_S) -> str | None:
    """Return the process and host that own the file `locked` from another host, None where none lives.

    Takes WATCH_BEATS beats where a process of another host has left its name. The owner's file is opened anew
    for each look, as a client of NFS asks the server then.
    """
    first = _read(_owner_file(locked))
    host, _, process = first[0].partition(" ")
    if host in ("", socket.gethostname()):
        return None
    deadline_s = time.monotonic() + WATCH_BEATS * beat_s
    while time.monotonic() < deadline_s:
        time.sleep(beat_s / 4)
        if _read(_owner_file(locked)) != first:
            return f"process {process} on host {host}"
    return None


def _owner_file(locked: Path) -> Path:
    """Return the file that names the owner of `locked`."""
    return locked.with_name(f"{locked.name}.owner")


def _read(owner: Path) -> tuple[str, int]:
    """Return what an owner's file says, "" where there is none, and the time of its last change in ns."""
    try:
        with owner.open(encoding="utf-8", errors="replace") as file:
            return file.read(200).strip(), os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return "", 0
