"""Signals that stop an orchestrator: what they become, and when they have to wait."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
"""SIGUSR2 is what a Slurm job is sent before its time limit (tune/deploy/job_script.py)."""


class Interrupted(KeyboardInterrupt):
    """A signal that asks to stop. A KeyboardInterrupt, as only that passes through asyncio's loop."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def raise_once() -> Callable[[int, FrameType | None], None]:
    """A handler that raises Interrupted at the first signal; whoever stops is not disturbed by the next."""
    raised = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal raised
        if not raised:
            raised = True
            raise Interrupted(number)

    return handle


@contextmanager
def deferred(*, last: bool) -> Iterator[None]:
    """Signals that stop wait until the block has ended; where nothing else is to be done, passed over."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        if last:
            for number in STOPPING:
                signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
