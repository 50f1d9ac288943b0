"""Survive the death of an orchestrator, and end the processes that it leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from tune.orchestrator.supervision.process_tree import (
    become_subreaper,
    kill_descendants,
    signal_on_parent_death,
)
from tune.orchestrator.supervision.scratch import make_scratch, remove_unused_scratch
from tune.orchestrator.supervision.signals import STOP_SIGNALS, raise_first_signal

_PARENT_ENDED = signal.SIGUSR1
"""Signal that the kernel sends when the parent ends.

It is sent more than once for a parent with threads, so it is not one of the stop signals.
"""


def run_supervised(work: Callable[[Path], int], parent: int | None, *, external_kill: bool = False) -> int:
    """Return the exit code of `work`, run in a child of this process; nothing below it outlives this call.

    `work` receives a scratch folder, which is removed in the end. A stop signal is passed on to it, where it
    is raised as Interrupted; a second one kills it, unless `external_kill`: then something else, such as
    Slurm, ends everything in time. With `parent` this process stops as soon as its parent of that id has
    ended. Where this process is killed itself, the kernel signals `work` to stop.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    become_subreaper()
    scratch = make_scratch()
    supervisor = os.getpid()
    worker = os.fork()
    if worker == 0:
        _run_worker(work, scratch, supervisor)
    stop_sent = False

    def forward(number: int, _frame: FrameType | None) -> None:
        """Pass a stop signal on to the child; kill the child at the second one."""
        nonlocal stop_sent
        os.kill(worker, signal.SIGKILL if stop_sent and not external_kill else signal.Signals(number))
        stop_sent = True

    def forward_once(_number: int, _frame: FrameType | None) -> None:
        """Ask the child to stop unless it was asked before."""
        if not stop_sent:
            forward(signal.SIGTERM, None)

    for number in STOP_SIGNALS:
        signal.signal(number, forward)
    signal.signal(_PARENT_ENDED, forward_once)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    if parent is not None:
        signal_on_parent_death(_PARENT_ENDED, parent)
    try:
        return _wait_for_worker(worker)
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, (*STOP_SIGNALS, _PARENT_ENDED))
        kill_descendants()
        shutil.rmtree(scratch, ignore_errors=True)
        remove_unused_scratch()


def _run_worker(work: Callable[[Path], int], scratch: Path, supervisor: int) -> None:
    """Run `work` as the child and end the process with its exit code."""
    code = 3
    try:
        become_subreaper()
        signal_on_parent_death(signal.SIGTERM, supervisor)
        handler = raise_first_signal()
        for number in STOP_SIGNALS:
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        code = work(scratch)
    except KeyboardInterrupt:
        code = 130
    except Exception:  # an error of ours: print its trace, as this process ends without one
        traceback.print_exc()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait_for_worker(worker: int) -> int:
    """Reap every child until `worker` ends; return its exit code, or 128 + the signal that ended it."""
    while True:
        process, status = os.waitpid(-1, 0)
        if process == worker:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
