"""Signals that stop an orchestrator: what they become, and when they have to wait."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
"""SIGUSR2 is what a Slurm job is sent before its time limit (tune/deploy/job_script.py)."""


class Interrupted(KeyboardInterrupt):
    """A signal that asks to stop. A KeyboardInterrupt, as only that passes through asyncio's loop."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def raise_first_signal() -> Callable[[int, FrameType | None], None]:
    """A handler that raises Interrupted at the first signal; whoever stops is not disturbed by the next."""
    raised = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal raised
        if not raised:
            raised = True
            raise Interrupted(number)

    return handle


@contextmanager
def defer_signals(*, last: bool) -> Iterator[None]:
    """Signals that stop wait until the block has ended; where nothing else is to be done, passed over.

    By their handlers, not by a mask: another thread would take what this one has blocked, and Python would
    run the handler here all the same. For the main thread.
    """
    waiting: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        waiting.append(number)

    before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if last else handler)
        if waiting and not last:
            signal.raise_signal(waiting[0])
