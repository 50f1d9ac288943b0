"""Run trials on this machine: one attempt at a time, each an orchestrator with its processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tune.backends.base import AttemptState, Backend
from tune.backends.local_gpus import check_gpus
from tune.core.files import make_folder
from tune.core.locks import lock_name
from tune.errors import ConfigurationError
from tune.manifest.process_manifest import read_manifest
from tune.orchestrator.preflight import require_free_ports, require_programs, require_variables
from tune.orchestrator.supervision.process_tree import exit_code
from tune.records.folders import trial_of
from tune.spec.backend_kinds import LOCAL
from tune.spec.findings import render_findings
from tune.spec.trial import TrialSpec

LOCK = "tune-local"
"""Name that one process of tune holds while it runs deployments on this machine."""

_POLL_S = 0.05
"""Pause between two looks at an orchestrator that is stopping, in seconds."""


class LocalBackend(Backend):
    """Run attempts one after the other, each an orchestrator with its processes.

    A second process of tune on this machine is refused. `say` prints that attempts wait. `lock` names what
    one process at a time may hold on this machine: it has the scope of the deployment's ports. `stop_s` is
    how long its processes may take to end.
    """

    capabilities = LOCAL

    def __init__(self, say: Callable[[str], None], lock: str = LOCK, *, stop_s: float = 0.0) -> None:
        self.idle_s = stop_s
        self._say, self._lock_name = say, lock
        self._lock: socket.socket | None = None
        self._waiting: deque[str] = deque()
        self._current: tuple[str, subprocess.Popen[bytes]] | None = None
        self._cancelled: str | None = None
        self._announced = False

    def submit(self, spec: TrialSpec, attempt: Path) -> str:
        """Queue an attempt of the plan in TRIAL/plan, and start it where none runs.

        Raises ConfigurationError where another process runs a deployment on this machine, a program or
        a variable is missing, a port is taken, or this machine has too few GPUs.
        """
        self._hold()
        handle = str(attempt.absolute())
        if self._current is None and not self._waiting:
            launch = read_manifest(trial_of(attempt).plan)
            require_programs(launch)
            require_variables(spec.environments, os.environ)
            require_free_ports(launch, dict.fromkeys(range(launch.nodes), "127.0.0.1"))
            if missing := check_gpus(gpu for process in launch.processes for gpu in process.gpus):
                raise ConfigurationError(f"{render_findings(missing)}\nNothing was started.")
        elif not self._announced:
            self._announced = True
            self._say("cluster=local runs one trial at a time: the others of study.parallel wait")
        self._waiting.append(handle)
        self._advance()
        return handle

    def poll(self, handle: str) -> AttemptState:
        """Return the state of the attempt; start the next one where none runs."""
        self._advance()
        if handle in self._waiting:
            return "waiting"
        return "running" if self._current and self._current[0] == handle else "ended"

    def cancel(self, handle: str) -> None:
        """Take a waiting attempt out of the queue, or stop the orchestrator of the running one."""
        if handle in self._waiting:
            self._waiting.remove(handle)
        elif self._current and self._current[0] == handle != self._cancelled:
            self._cancelled = handle  # a second signal would kill it before its record is written
            if exit_code(self._current[1]) is None:
                os.kill(self._current[1].pid, signal.SIGTERM)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the running deployment and wait for its end: none of its processes outlives the backend."""
        self._waiting.clear()
        if self._current:
            self.cancel(self._current[0])
            while exit_code(self._current[1]) is None:
                time.sleep(_POLL_S)
            self._current = None
        if self._lock:
            self._lock.close()
            self._lock = None

    def _advance(self) -> None:
        """Start the next waiting attempt where none runs."""
        if self._current and exit_code(self._current[1]) is not None:
            self._current = None
        if self._current is None and self._waiting:
            self._start(self._waiting.popleft())

    def _start(self, handle: str) -> None:
        """Start the orchestrator of an attempt, in a session of its own."""
        assert self._lock is not None
        make_folder(Path(handle))
        # Ctrl-C reaches only this process, which then cancels. The orchestrator inherits the lock: it may
        # still be stopping its deployment when this process is gone.
        self._current = (
            handle,
            subprocess.Popen(
                [sys.executable, "-m", "tune.orchestrator", handle, "--parent", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(self._lock.fileno(),),
            ),
        )

    def _hold(self) -> None:
        """Take the lock of this machine. Raises ConfigurationError where another process has it."""
        if self._lock:
            return
        try:
            self._lock = lock_name(self._lock_name)
        except OSError as error:
            raise ConfigurationError(
                "cluster=local: another process of tune runs a deployment on this machine, or still stops "
                f"one ({error.strerror}); expected only one deployment per machine: two would share ports "
                "and cores. Wait for it."
            ) from error
