"""How a process of a plan is started on its node: the only part of an orchestrator that differs by place."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from tune.deploy.process import Process
from tune.orchestrate.before import program_path
from tune.orchestrate.kin import exit_code, follow_parent


class Started(Protocol):
    """One process of a plan that was started."""

    def poll(self) -> int | None:
        """Its exit code, negative where a signal ended it; None while it runs."""

    def terminate(self) -> None:
        """Ask it to end. Does nothing to one that has ended."""

    def kill(self) -> None:
        """End it, whatever it does. Does nothing to one that has ended."""


class Starter(Protocol):
    """Starts processes; texts it is given are bound, without placeholders.

    `scratch`: a folder for what nobody needs after the attempt.
    """

    @property
    def scratch(self) -> Path: ...

    def start(self, process: Process, argv: Sequence[str], env: Mapping[str, str], log: Path) -> Started:
        """Run `argv` where `process` belongs, with `env` beside the environment of the job, into `log`.

        Raises OSError where it cannot be started.
        """


class ChildProcesses:
    """Every process as a child of this one, each in a session of its own; they end when this one ends.

    They take `scratch` for temporary files.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._environment = dict(os.environ) | {
            "TMPDIR": str(scratch),
            "PATH": program_path(),
        }

    def start(self, process: Process, argv: Sequence[str], env: Mapping[str, str], log: Path) -> Started:
        """As the protocol says; called from the main thread only, as `follow_parent` asks."""
        environment = self._environment | dict(env)
        with log.open("wb") as file:
            return _Child(
                subprocess.Popen(
                    argv,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=partial(follow_parent, signal.SIGKILL, os.getpid()),  # noqa: PLW1509
                )
            )


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
