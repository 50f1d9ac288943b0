"""Describe processes of a plan that were started, and end them."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tune.manifest.process import PLAN_DIR, Process
from tune.manifest.process_manifest import ProcessManifest
from tune.orchestrator.launcher import ProcessHandle
from tune.spec.split import ALL_ROLES

PrintLine = Callable[[str], None]
"""Shows one line of progress."""

POLL_S = 0.1
"""Seconds between two looks at running processes."""

SERVICES = ("etcd", "nats")
"""Roles of the processes that all others register with."""
WORKER_ROLES = ALL_ROLES
"""Roles of the workers."""

SHELL_SIGNALS = 128
"""What a shell and srun add to the number of the signal that ended a process."""

_PLAN_FILE = re.compile(re.escape(PLAN_DIR) + r"/([\w.-]+)")


@dataclass(frozen=True)
class ManagedProcess:
    """Hold one process that was started, the log of its output, and its fingerprint."""

    process: Process
    handle: ProcessHandle
    log: Path
    fingerprint: str

    @property
    def name(self) -> str:
        """Return the name of the process in its plan."""
        return self.process.name


def fingerprint(process: Process, manifest: ProcessManifest, plan: Path) -> str:
    """Return a hash that is equal for two processes of one allocation that a later trial can share.

    It covers node, GPUs, command, environment, and the content of every file of the plan that they name, or
    of all files in a folder. Raises OSError where such a file is missing.
    """
    named = [plan / name for name in _PLAN_FILE.findall(" ".join([*process.argv, *process.env.values()]))]
    paths = [path for one in named for path in (one.iterdir() if one.is_dir() else (one,))]
    files = {str(path.relative_to(plan)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    identity = [process.name, process.node_index, process.gpus, process.argv, dict(process.env), files]
    step = [manifest.container, manifest.gpus_per_node, manifest.srun_options, manifest.mpi]
    placement = [*step, process.inherits, manifest.srun_env]
    return hashlib.sha256(json.dumps([identity, placement], sort_keys=True).encode()).hexdigest()


def stop_in_order(running: Sequence[ManagedProcess], stop_s: float, print_line: PrintLine) -> None:
    """End the client, a check or a sample, then frontend and workers, then the services.

    Each process is asked to end, and killed when it has not ended `stop_s` later.
    """
    for roles in (("client", "check", "sample"), ("frontend", *WORKER_ROLES), SERVICES):
        stop_group([member for member in running if member.process.role in roles], stop_s, print_line)


def stop_group(running: Sequence[ManagedProcess], stop_s: float, print_line: PrintLine) -> None:
    """End all of `running` at once; kill those that have not ended `stop_s` after they were asked."""
    stopping = [member for member in running if member.handle.poll() is None]
    for member in stopping:
        member.handle.terminate()
    deadline_s = time.monotonic() + stop_s
    while alive := [member for member in stopping if member.handle.poll() is None]:
        if time.monotonic() > deadline_s:
            names = ", ".join(member.name for member in alive)
            print_line(f"killing what did not end within {stop_s:g} s: {names}")
            for member in alive:
                member.handle.kill()
            deadline_s = time.monotonic() + stop_s
        time.sleep(POLL_S)


def is_signal(code: int) -> bool:
    """Return whether an exit code says that a signal ended the process: Python's own, a shell's or srun's."""
    return code < 0 or code > SHELL_SIGNALS


def describe_exit(code: int) -> str:
    """Return in words how a process ended. A shell and srun report a signal by an exit code above 128."""
    if code < 0:
        return f"by {signal.Signals(-code).name}"
    signal_names = {SHELL_SIGNALS + number: f" ({number.name})" for number in signal.Signals}
    return f"with exit code {code}{signal_names.get(code, '')}"


def format_counts(processes: Sequence[Process], counts: Mapping[str, float]) -> str:
    """Return the count of each process as text, such as `prefill_w0 3, prefill_w1 none`."""
    return ", ".join(f"{p.name} {int(counts[p.name]) or 'none'}" for p in processes if p.name in counts)
