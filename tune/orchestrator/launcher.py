"""How a process of a plan is started on its node: the only part of an orchestrator that differs by place."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tune.manifest.process import Process
from tune.orchestrator.preflight import program_path
from tune.orchestrator.supervision.process_tree import exit_code, signal_on_parent_death
from tune.orchestrator.supervision.signals import STOP_SIGNALS


@dataclass(frozen=True)
class NodeAddresses:
    """`hosts`: host name of each node index. `addresses`: where the other nodes reach it."""

    hosts: tuple[str, ...]
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class ResolvedProcess:
    """A process of a plan with every placeholder filled.

    `hosts`: those of its nodes, in rank order. `env`: what it needs beside the environment of the job.
    `container`, `gpus_per_node`: as in Launch.
    """

    process: Process
    hosts: tuple[str, ...]
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    container: tuple[str, ...]
    gpus_per_node: int | None


class ProcessHandle(Protocol):
    """One process of a plan that was started."""

    def poll(self) -> int | None:
        """Its exit code, negative where a signal ended it; None while it runs."""

    def terminate(self) -> None:
        """Ask it to end. Does nothing to one that has ended."""

    def kill(self) -> None:
        """End it, whatever it does; the harder the more often it is asked. Nothing to one that has ended."""


class ProcessLauncher(Protocol):
    """Starts processes. `scratch`: a folder that every node sees, for what nobody needs afterwards."""

    @property
    def scratch(self) -> Path: ...

    def start(self, bound: ResolvedProcess) -> ProcessHandle:
        """Run the process where it belongs, its output into its log. Raises OSError where it cannot be."""

    def withdrawn(self) -> str | None:
        """Why everything here ends, where whoever lent these nodes takes them back; None where nobody does.

        Asked when a process has ended; may wait a moment, in which Interrupted may be raised instead.
        """

    def swept(self) -> bool:
        """Whether nothing of what was started and ended is left on any node. May wait for it."""

    def interruption(self, number: int) -> str:
        """Why the signal `number` to stop was sent, in words."""


def die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """What a child of this process, of its main thread, runs before its program: that is sent `number` when
    this process has ended."""
    parent = os.getpid()

    def follow() -> None:
        for stopping in STOP_SIGNALS:  # what this process does on them is not for a child
            signal.signal(stopping, signal.SIG_DFL)
        signal_on_parent_death(number, parent)

    return follow


class ChildProcessLauncher:
    """Every process as a child of this one, each in a session of its own; they end when this one ends.

    They take `scratch` for temporary files.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._environment = dict(os.environ) | {
            "TMPDIR": str(scratch),
            "PATH": program_path(),
        }

    def start(self, bound: ResolvedProcess) -> ProcessHandle:
        """As the protocol says; called from the main thread only, as `following` asks."""
        environment = self._environment | dict(bound.env)
        with bound.log.open("wb") as file:
            return _Child(
                subprocess.Popen(
                    bound.argv,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509
                )
            )

    def withdrawn(self) -> str | None:
        return None

    def swept(self) -> bool:
        return True

    def interruption(self, number: int) -> str:
        return "interrupted"


class _Child:
    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child

    def poll(self) -> int | None:
        return exit_code(self._child)

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        """To its whole process group, as long as it is there itself: ids of ended groups are given anew."""
        if exit_code(self._child) is None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)
