"""Turn signals that stop an orchestrator into an exception, and defer them where they must wait."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGALRM)
"""Signals that stop an orchestrator.

Slurm sends SIGUSR2 before the time limit of a job (tune/deploy/job_script.py). SIGALRM comes at the limit of
an attempt (tune/records/attempt_limit.py).
"""


class Interrupted(KeyboardInterrupt):
    """Report a signal that asks to stop. A KeyboardInterrupt, as only that passes through asyncio's loop."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def raise_first_signal() -> Callable[[int, FrameType | None], None]:
    """Return a handler that raises Interrupted at the first signal and ignores later ones."""
    raised = False

    def handle(number: int, _frame: FrameType | None) -> None:
        """Raise Interrupted once."""
        nonlocal raised
        if not raised:
            raised = True
            raise Interrupted(number)

    return handle


@contextmanager
def defer_signals(*, last: bool) -> Iterator[None]:
    """Delay stop signals until the block ends; discard them if `last`.

    Uses handlers, because a signal blocked here would be delivered to another thread. Main thread only.
    """
    deferred: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        """Note a signal."""
        deferred.append(number)

    handlers = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_IGN if last else handler)
        if deferred and not last:
            signal.raise_signal(deferred[0])
