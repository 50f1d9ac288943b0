"""Who descends from this process, and how none of them outlives it. Linux only."""

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

_REAP_EVERY_S = 0.01


def adopt_orphans() -> None:
    """From now on a process whose parent ended becomes this one's child, wherever below it stood."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def signal_on_parent_death(number: signal.Signals, parent: int) -> None:
    """Have the kernel send this process `number` when process `parent`, its parent, has ended.

    The signal comes when the thread ends that started this process, so that has to be a main thread; then
    again when another thread ends to which the kernel gave this process. Source: Linux, kernel/exit.c,
    forget_original_parent.
    """
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended before the kernel was told
        os.kill(os.getpid(), number)


def exit_code(process: subprocess.Popen[Any]) -> int | None:
    """As `Popen.poll`, without its lock: an interrupt in the middle of `poll` leaves it taken for ever."""
    if process.returncode is None:
        found = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is not None:
            process.returncode = found.si_status * (1 if found.si_code == os.CLD_EXITED else -1)
            os.waitpid(process.pid, 0)
    return process.returncode


def descendants(ancestor: int) -> tuple[int, ...]:
    """Every living process below `ancestor`, zombies left out."""
    children: dict[int, list[int]] = {}
    for process, parent in _processes():
        children.setdefault(parent, []).append(process)
    found, ahead = [], [ancestor]
    while ahead:
        below = children.get(ahead.pop(), [])
        found += below
        ahead += below
    return tuple(found)


def kill_descendants() -> int:
    """Kill and reap everything below this process; how many were still there. Ends only when none is.

    No other code may wait for a child meanwhile. Orphans are seen only after `adopt_orphans`.
    """
    killed: set[int] = set()
    while found := descendants(os.getpid()):
        for process in found:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed.add(process)
        _reap()
        time.sleep(_REAP_EVERY_S)
    _reap()
    return len(killed)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _processes() -> Iterator[tuple[int, int]]:
    """(process, its parent) of every process that is no zombie. Source: Linux, proc_pid_stat(5)."""
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
    if _LIBC.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option}")
