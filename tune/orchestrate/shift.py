"""Attempts one after another on the nodes of one Slurm job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from tune.errors import RunAgain
from tune.orchestrate.attempt import INTERRUPTED, Allocated, run_attempt
from tune.orchestrate.held import Held
from tune.orchestrate.inbox import close, entries, is_closed, take
from tune.orchestrate.interrupts import deferred
from tune.orchestrate.running import Say
from tune.orchestrate.starter import Nodes, Starter

IDLE_S = 120.0
"""An allocation that has had nothing to do for so long gives its nodes back. Its next attempt may come when
the last one of its batch has ended, which nobody knows beforehand, or never; to wait costs less than to begin
anew for as long as it is shorter than bring-up and queue, and those who queue behind it should not wait long.
A driver that has no more closes the inbox, which ends the waiting at once."""

MARGIN = 1.2
"""The next attempt may take so many times as long as the longest one so far."""

_POLL_S = 0.5

LeftS = Callable[[], float | None]


def run_each(attempts: Iterable[Path], lent: Allocated, starter: Starter, say: Say, *, last: bool) -> int:
    """Run `attempts` on the nodes that are `lent`; the exit code of the last one. `last`: there is one only.

    Told to stop, or where what an attempt ended is still on the nodes, it leaves the others. Nothing that it
    can end runs when this returns.
    """
    held, code = Held(say, last=last), 0
    try:
        for attempt in attempts:
            code = run_attempt(attempt, partial(_lease, lent, attempt), starter, say, held)
            if code == INTERRUPTED or not (last or held.running or _swept(starter, say)):
                break
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        with deferred(last=True):
            if held.running:
                held.stop()
    return code


def inbox_of(folder: Path, left_s: LeftS, say: Say, idle_s: float = IDLE_S) -> Iterator[Path]:
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
        if not is_closed(folder):
            say("closing the inbox of this job")
            close(folder)


def _await_entry(folder: Path, taken: int, idle_s: float) -> Path | None:
    until_s = time.monotonic() + idle_s
    while True:
        closed = is_closed(folder)  # asked first: nothing is posted after it was closed
        posted = entries(folder)
        if len(posted) > taken:
            return posted[taken]
        if closed or time.monotonic() > until_s:
            return None
        time.sleep(_POLL_S)


def _swept(starter: Starter, say: Say) -> bool:
    try:
        swept = starter.swept()
    except RunAgain as error:
        say(f"whether the nodes are free is not known: {error}")
        return False
    if not swept:
        say("processes of the attempt are still on its nodes: no other attempt begins there")
    return swept


def _time_suffices(left_s: LeftS, needed_s: float, say: Say) -> bool:
    try:
        found_s = left_s()
    except RunAgain as error:
        say(f"the time left is not known ({error}); trying the next attempt")
        return True
    if found_s is None or found_s >= needed_s:
        return True
    say(f"{found_s:.0f} s are left, the next attempt may need {needed_s:.0f} s: leaving it to another job")
    return False


def _lease(lent: Allocated, attempt: Path, count: int) -> Nodes:
    nodes = lent(count)
    take(attempt, nodes.hosts)
    return nodes
