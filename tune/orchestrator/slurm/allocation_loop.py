"""Run attempts one after another on the nodes of one Slurm job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from tune.errors import ResumableError
from tune.orchestrator.attempt import EXIT_INTERRUPTED, AllocateNodes, run_attempt
from tune.orchestrator.held_timer import HeldTimer
from tune.orchestrator.launcher import NodeAddresses, ProcessLauncher
from tune.orchestrator.managed_process import PrintLine
from tune.orchestrator.process_pool import ManagedProcesses
from tune.orchestrator.slurm.work_queue import close_queue, is_queue_closed, mark_started, queued_attempts
from tune.orchestrator.supervision.signals import defer_signals

IDLE_S = 120.0
"""Seconds without an attempt after which an allocation gives its nodes back.

Its next attempt may arrive when the last one of its batch has ended, which nothing can know beforehand, or
never. Waiting costs less than a new start as long as it is shorter than bring-up and queue, and other users
of the queue should not wait long. A driver without further attempts closes the queue, which ends the wait at
once.
"""

TIME_MARGIN_RATIO = 1.2
"""Time that the next attempt may need, as a multiple of the longest attempt so far."""

_POLL_S = 0.5

TimeLeft = Callable[[], float | None]
"""Returns the seconds until the time limit, None where there is none."""


def run_attempts(
    attempts: Iterable[Path],
    allocate: AllocateNodes,
    launcher: ProcessLauncher,
    print_line: PrintLine,
    *,
    last: bool,
) -> int:
    """Run `attempts` on the allocated nodes; return the exit code of the last one that ran.

    `last`: there is only one. After an interrupt, or where an ended attempt has left processes on the nodes,
    the other attempts do not begin. Nothing that can be ended runs when this returns.
    """
    processes, code = ManagedProcesses(print_line, last=last), 0
    held = HeldTimer(print_line)
    try:
        for attempt in attempts:
            held.begin(attempt)
            code = run_attempt(
                attempt, partial(_allocate_and_mark, allocate, attempt), launcher, print_line, processes
            )
            if code == EXIT_INTERRUPTED or not (
                last or processes.running or _check_nodes_clean(launcher, print_line)
            ):
                break
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    finally:
        with defer_signals(last=True):
            if processes.running:
                processes.stop()
            held.end()
    return code


def iter_queue(
    folder: Path, time_left_s: TimeLeft, print_line: PrintLine, idle_s: float = IDLE_S
) -> Iterator[Path]:
    """Yield the attempts in the queue of the allocation `folder`, each when the one before has ended.

    Ends when the queue is closed and empty; when it stays empty for `idle_s`; or when less time is left than
    the longest attempt so far took, times TIME_MARGIN_RATIO. The first attempt is always yielded. In the end
    the queue is closed, also where the caller stops.
    """
    started, longest_s = 0, 0.0
    try:
        while attempt := _wait_for_entry(folder, started, idle_s):
            if started and not _time_suffices(time_left_s, longest_s * TIME_MARGIN_RATIO, print_line):
                break
            started_s = time.monotonic()
            yield attempt
            longest_s = max(longest_s, time.monotonic() - started_s)
            started += 1
    finally:
        if not is_queue_closed(folder):
            print_line("closing the queue of this job")
            close_queue(folder)


def _wait_for_entry(folder: Path, started: int, idle_s: float) -> Path | None:
    """Return the attempt after the first `started`; None when the queue closes or idles for `idle_s`."""
    deadline_s = time.monotonic() + idle_s
    while True:
        closed = is_queue_closed(folder)  # asked first: nothing is posted after it was closed
        queued = queued_attempts(folder)
        if len(queued) > started:
            return queued[started]
        if closed or time.monotonic() > deadline_s:
            return None
        time.sleep(_POLL_S)


def _check_nodes_clean(launcher: ProcessLauncher, print_line: PrintLine) -> bool:
    """Return whether another attempt may begin on the nodes; print why not."""
    try:
        is_clean = launcher.nodes_clean()
    except ResumableError as error:
        print_line(f"whether the nodes are free is not known: {error}")
        return False
    if not is_clean:
        print_line("processes of the attempt are still on its nodes: no other attempt begins there")
    return is_clean


def _time_suffices(time_left_s: TimeLeft, needed_s: float, print_line: PrintLine) -> bool:
    """Return whether the job has `needed_s` left; True where that is not known."""
    try:
        available_s = time_left_s()
    except ResumableError as error:
        print_line(f"the time left is not known ({error}); trying the next attempt")
        return True
    if available_s is None or available_s >= needed_s:
        return True
    print_line(
        f"{available_s:.0f} s are left, the next attempt may need {needed_s:.0f} s: leaving it to another job"
    )
    return False


def _allocate_and_mark(allocate: AllocateNodes, attempt: Path, count: int) -> NodeAddresses:
    """Return the hosts of `count` nodes and note in the folder `attempt` that it has started there."""
    nodes = allocate(count)
    mark_started(attempt, nodes.hosts)
    return nodes
