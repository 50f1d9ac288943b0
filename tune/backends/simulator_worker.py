"""Run simulated attempts in a process of their own, one after the other, that can be killed at any moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from tune.backends.activity import Activity
from tune.backends.simulated_attempt import simulate_attempt
from tune.core.plain_warnings import show_plain_warnings
from tune.records.outcome import Probe
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec


@dataclass(frozen=True)
class AttemptEnd:
    """Hold how an attempt ended: its probes, or the error of measuring it."""

    probes: list[Probe]
    error: Exception | None = None


Message = tuple[Activity | None, AttemptEnd | None]
"""What a process sends: a step of its attempt, or how the attempt ended."""


class SimulatorWorker:
    """Run one process that simulates attempts of `calibration` in `threads` threads.

    `handle` names the attempt that runs. Ctrl-C is held back while the process starts, so that no process is
    started that nobody knows.
    """

    def __init__(self, calibration: Calibration, threads: int) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        self.handle: str | None = None
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = multiprocessing.get_context("spawn").Process(
                target=_serve, args=(theirs, calibration, threads), daemon=True
            )
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def begin(self, handle: str, spec: TrialSpec) -> None:
        """Simulate an attempt of `spec` in the folder `handle`. A dead process shows in `messages`."""
        self.handle = handle
        try:
            self._connection.send((spec, handle))
        except BrokenPipeError:
            return

    def messages(self) -> Iterator[Message]:
        """Yield what the process has sent since the last call.

        Raises EOFError where the process was killed.
        """
        try:
            while self._connection.poll():
                yield self._connection.recv()
        except ConnectionResetError as error:
            raise EOFError from error

    def kill(self) -> None:
        """Kill the process and wait for its end; the attempt that runs leaves no record."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def _serve(connection: Connection, calibration: Calibration, threads: int) -> None:
    """Simulate what comes through `connection` until the process that owns the study ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that owns the study
    threading.Thread(target=_end_with_parent, daemon=True).start()
    show_plain_warnings()
    while True:
        spec, handle = connection.recv()
        try:
            probes = simulate_attempt(
                spec,
                calibration,
                Path(handle),
                lambda step: connection.send((step, None)),
                threads=threads,
            )
            end = AttemptEnd(probes)
        except Exception as error:  # the study raises it
            end = AttemptEnd([], error)
        connection.send((None, end))


def _end_with_parent() -> None:
    """Wait for the parent process, then end this one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
