"""Find the descendants of this process and keep them from outliving it. Linux only."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
"""Source: Linux, include/uapi/linux/prctl.h."""

_REAP_INTERVAL_S = 0.01


def become_subreaper() -> None:
    """Make this process the parent of every descendant whose own parent ends, at any depth."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def signal_on_parent_death(number: signal.Signals, parent: int) -> None:
    """Make the kernel send this process `number` when process `parent`, its parent, has ended.

    The kernel sends the signal when the thread that started this process ends, so a main thread has to
    start it. The kernel sends it again when another thread that it made the parent ends. Source:
    Linux, kernel/exit.c, forget_original_parent.
    """
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended before the call
        os.kill(os.getpid(), number)


def exit_code(process: subprocess.Popen[Any]) -> int | None:
    """Return the exit code of `process`, None while it runs; negative for a signal.

    Unlike `Popen.poll` it takes no lock, which an interrupt in the middle would leave taken for ever.
    """
    if process.returncode is None:
        status = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if status is not None:
            process.returncode = status.si_status * (1 if status.si_code == os.CLD_EXITED else -1)
            os.waitpid(process.pid, 0)
    return process.returncode


def descendants(ancestor: int) -> tuple[int, ...]:
    """Return every living process below `ancestor`, without zombies."""
    children: dict[int, list[int]] = {}
    for process, parent in _living_processes():
        children.setdefault(parent, []).append(process)
    result, unvisited = [], [ancestor]
    while unvisited:
        below = children.get(unvisited.pop(), [])
        result += below
        unvisited += below
    return tuple(result)


def kill_descendants() -> int:
    """Kill and reap everything below this process until none is left; return how many were killed.

    No other code may wait for a child meanwhile. Orphans are seen only after `become_subreaper`.
    """
    killed: set[int] = set()
    while living := descendants(os.getpid()):
        for process in living:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed.add(process)
        _reap()
        time.sleep(_REAP_INTERVAL_S)
    _reap()
    return len(killed)


def _reap() -> None:
    """Reap every child that has ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _living_processes() -> Iterator[tuple[int, int]]:
    """Yield (process, its parent) of every process that is no zombie. Source: Linux, proc_pid_stat(5)."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            stat = (entry / "stat").read_text(errors="replace")
        except OSError:  # it has ended since
            continue
        state, parent = stat.rpartition(")")[2].split()[:2]
        if state != "Z":
            yield int(entry.name), int(parent)


def _prctl(option: int, value: int) -> None:
    """Call prctl(2). Raises OSError."""
    if _LIBC.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option}")
