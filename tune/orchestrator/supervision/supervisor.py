"""The process that stays when an orchestrator is killed, and ends what that left behind."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from tune.orchestrator.supervision.process_tree import adopt_orphans, kill_descendants, signal_on_parent_death
from tune.orchestrator.supervision.scratch import make_scratch
from tune.orchestrator.supervision.signals import STOP_SIGNALS, raise_first_signal

_ORPHANED = signal.SIGUSR1
"""What the kernel sends when the parent ends: of a parent with threads more than once, so it counts apart."""


def run_supervised(work: Callable[[Path], int], parent: int | None, *, patient: bool = False) -> int:
    """The exit code of `work`, run in a child of this process; nothing below it outlives this call.

    `work` is given a scratch folder, which is removed in the end. A signal to stop is passed on to it, where
    it is raised as Interrupted; a second one kills it, unless `patient`: someone else sends signals and ends
    everything in time. With `parent` this process stops as soon as its parent of that id has ended. Where
    this process is killed itself, the kernel tells `work` to stop.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    adopt_orphans()
    scratch = make_scratch()
    guardian = os.getpid()
    worker = os.fork()
    if worker == 0:
        _end(work, scratch, guardian)
    told = False

    def tell(number: int, _frame: FrameType | None) -> None:
        nonlocal told
        os.kill(worker, signal.SIGKILL if told and not patient else signal.Signals(number))
        told = True

    def tell_once(_number: int, _frame: FrameType | None) -> None:
        if not told:
            tell(signal.SIGTERM, None)

    for number in STOP_SIGNALS:
        signal.signal(number, tell)
    signal.signal(_ORPHANED, tell_once)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    if parent is not None:
        signal_on_parent_death(_ORPHANED, parent)
    try:
        return _wait_for(worker)
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, (*STOP_SIGNALS, _ORPHANED))
        kill_descendants()
        shutil.rmtree(scratch, ignore_errors=True)


def _end(work: Callable[[Path], int], scratch: Path, guardian: int) -> None:
    """Run `work` as the child and end with its exit code."""
    code = 3
    try:
        adopt_orphans()
        signal_on_parent_death(signal.SIGTERM, guardian)
        handler = raise_first_signal()
        for number in STOP_SIGNALS:
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        code = work(scratch)
    except KeyboardInterrupt:
        code = 130
    except Exception:
        traceback.print_exc()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait_for(worker: int) -> int:
    """Reap what ends until `worker` does; its exit code, or 128 + the signal that ended it."""
    while True:
        process, status = os.waitpid(-1, 0)
        if process == worker:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
