"""Start a process of a plan on its node: the part of an orchestrator that depends on the backend."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tune.core.files import no_link
from tune.manifest.process import Process
from tune.orchestrator.preflight import program_path
from tune.orchestrator.step_environment import step_environment
from tune.orchestrator.supervision.process_tree import exit_code, signal_on_parent_death
from tune.orchestrator.supervision.signals import STOP_SIGNALS


@dataclass(frozen=True)
class NodeAddresses:
    """Hold the host name of each node index, and the address under which the other nodes reach it."""

    hosts: tuple[str, ...]
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class ResolvedProcess:
    """Hold a process of a plan with every placeholder filled in.

    `hosts`: those of its nodes, in rank order. `env`: variables with their values.
    `container`, `gpus_per_node`, `srun_env`, `srun_options` and `mpi` are those of
    tune.manifest.process_manifest.ProcessManifest.
    """

    process: Process
    hosts: tuple[str, ...]
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    container: tuple[str, ...]
    gpus_per_node: int | None
    srun_env: Mapping[str, str | None]
    srun_options: tuple[str, ...] = ()
    mpi: str = "pmix"


class ProcessHandle(Protocol):
    """Control one process that was started."""

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the process runs."""

    def terminate(self) -> None:
        """Ask the process to end. Does nothing once it has ended."""

    def kill(self) -> None:
        """End the process by force, harder with each call. Does nothing once it has ended."""


class ProcessLauncher(Protocol):
    """Start processes. `scratch` is a folder that every node sees, for files of one attempt."""

    @property
    def scratch(self) -> Path:
        """Return the folder for files that nothing needs afterwards; every node sees it."""

    def start(self, resolved: ResolvedProcess) -> ProcessHandle:
        """Run a process on its nodes, its output into its log. Raises OSError where it cannot be started."""

    def revoked_reason(self) -> str | None:
        """Return the reason if the allocation is being revoked, else None.

        Called when an attempt has failed. May wait a moment, in which Interrupted may be raised instead.
        """

    def failed_nodes(self, error: str, *, revoked: bool) -> tuple[str, ...]:
        """Return the hosts that the scheduler blames for the failure described by the text `error`.

        `revoked`: the scheduler takes all nodes away; little time may be left then.
        """

    def nodes_clean(self) -> bool:
        """Return whether no process of an ended step is left on any node. May wait for it."""

    def interruption_reason(self, number: int) -> str:
        """Return in words why the stop signal `number` was sent."""


def die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """Return a preexec function for children of this process's main thread.

    It asks the kernel to send `number` to the child when this process dies (PR_SET_PDEATHSIG).
    """
    parent = os.getpid()

    def follow() -> None:
        """Restore the default handlers of stop signals and tie the child to its parent."""
        for stop_signal in STOP_SIGNALS:  # what this process does on them is not for a child
            signal.signal(stop_signal, signal.SIG_DFL)
        signal_on_parent_death(number, parent)

    return follow


class ChildProcessLauncher:
    """Start every process as a child of this one, in a session of its own; they end when this process ends.

    They use `scratch` for temporary files.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._environment = dict(os.environ)
        self._own = {"TMPDIR": str(scratch), "PATH": program_path()}

    def start(self, resolved: ResolvedProcess) -> ProcessHandle:
        """Run a process on this host, its output into its log. Raises OSError where it cannot be started.

        Only the main thread may call this, as die_with_parent requires.
        """
        process = resolved.process
        inherited = step_environment(self._environment, process.role, process.inherits)
        environment = inherited | self._own | dict(resolved.env)
        with open(resolved.log, "wb", opener=no_link) as file:
            return _Child(
                subprocess.Popen(
                    resolved.argv,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509
                )
            )

    def revoked_reason(self) -> str | None:
        """Return None: nothing revokes this host."""
        return None

    def failed_nodes(self, error: str, *, revoked: bool) -> tuple[str, ...]:
        """Return none: no scheduler watches this host."""
        return ()

    def nodes_clean(self) -> bool:
        """Return True: supervision ends processes left on this host."""
        return True

    def interruption_reason(self, number: int) -> str:
        """Return "interrupted"."""
        return "interrupted"


class _Child:
    """Control a child and its process group."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child

    def poll(self) -> int | None:
        """Return the exit code of the child, None while it runs."""
        return exit_code(self._child)

    def terminate(self) -> None:
        """Send SIGTERM to the group."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the group."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the whole process group while its leader lives: ids of ended groups are given anew."""
        if exit_code(self._child) is None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)
