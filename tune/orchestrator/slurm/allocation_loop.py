"""Attempts one after another on the nodes of one Slurm job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from tune.errors import ResumableError
from tune.orchestrator.attempt import INTERRUPTED, Allocated, run_attempt
from tune.orchestrator.launcher import NodeAddresses, ProcessLauncher
from tune.orchestrator.managed_process import PrintLine
from tune.orchestrator.process_pool import ManagedProcesses
from tune.orchestrator.slurm.work_queue import close_queue, is_queue_closed, mark_started, queued_attempts
from tune.orchestrator.supervision.signals import defer_signals

IDLE_S = 120.0
"""An allocation that has had nothing to do for so long gives its nodes back. Its next attempt may come when
the last one of its batch has ended, which nobody knows beforehand, or never; to wait costs less than to begin
anew for as long as it is shorter than bring-up and queue, and those who queue behind it should not wait long.
A driver that has no more closes the inbox, which ends the waiting at once."""

MARGIN = 1.2
"""The next attempt may take so many times as long as the longest one so far."""

_POLL_S = 0.5

LeftS = Callable[[], float | None]


def run_attempts(
    attempts: Iterable[Path], lent: Allocated, starter: ProcessLauncher, say: PrintLine, *, last: bool
) -> int:
    """Run `attempts` on the nodes that are `lent`; the exit code of the last one. `last`: there is one only.

    Told to stop, or where what an attempt ended is still on the nodes, it leaves the others. Nothing that it
    can end runs when this returns.
    """
    held, code = ManagedProcesses(say, last=last), 0
    try:
        for attempt in attempts:
            code = run_attempt(attempt, partial(_lease, lent, attempt), starter, say, held)
            if code == INTERRUPTED or not (last or held.running or _swept(starter, say)):
                break
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        with defer_signals(last=True):
            if held.running:
                held.stop()
    return code


def iter_queue(folder: Path, left_s: LeftS, say: PrintLine, idle_s: float = IDLE_S) -> Iterator[Path]:
    """The attempts in the inbox of the allocation `folder`, in order, each when the one before has ended.

    Ends when the inbox is closed and empty; or when it stays empty for `idle_s`, or less time is left than
    the longest attempt so far took, times MARGIN. The first one is always tried. In the end, also where the
    caller stops, the inbox is closed.
    """
    taken, longest_s = 0, 0.0
    try:
        while attempt := _await_entry(folder, taken, idle_s):
            if taken and not _time_suffices(left_s, longest_s * MARGIN, say):
                break
            began_s = time.monotonic()
            yield attempt
            longest_s = max(longest_s, time.monotonic() - began_s)
            taken += 1
    finally:
        if not is_queue_closed(folder):
            say("closing the inbox of this job")
            close_queue(folder)


def _await_entry(folder: Path, taken: int, idle_s: float) -> Path | None:
    until_s = time.monotonic() + idle_s
    while True:
        closed = is_queue_closed(folder)  # asked first: nothing is posted after it was closed
        posted = queued_attempts(folder)
        if len(posted) > taken:
            return posted[taken]
        if closed or time.monotonic() > until_s:
            return None
        time.sleep(_POLL_S)


def _swept(starter: ProcessLauncher, say: PrintLine) -> bool:
    try:
        swept = starter.swept()
    except ResumableError as error:
        say(f"whether the nodes are free is not known: {error}")
        return False
    if not swept:
        say("processes of the attempt are still on its nodes: no other attempt begins there")
    return swept


def _time_suffices(left_s: LeftS, needed_s: float, say: PrintLine) -> bool:
    try:
        found_s = left_s()
    except ResumableError as error:
        say(f"the time left is not known ({error}); trying the next attempt")
        return True
    if found_s is None or found_s >= needed_s:
        return True
    say(f"{found_s:.0f} s are left, the next attempt may need {needed_s:.0f} s: leaving it to another job")
    return False


def _lease(lent: Allocated, attempt: Path, count: int) -> NodeAddresses:
    nodes = lent(count)
    mark_started(attempt, nodes.hosts)
    return nodes
