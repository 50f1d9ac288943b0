"""Processes of a plan that were started: what they are, and how they are ended."""

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

PrintLine = Callable[[str], None]

POLL_S = 0.1

SERVICES = ("etcd", "nats")
ENGINES = ("prefill", "decode")

_PLAN_FILE = re.compile(re.escape(PLAN_DIR) + r"/([\w.-]+)")


@dataclass(frozen=True)
class ManagedProcess:
    """One process that was started, where its output goes, and its fingerprint."""

    process: Process
    started: ProcessHandle
    log: Path
    fingerprint: str

    @property
    def name(self) -> str:
        return self.process.name


def fingerprint(process: Process, launch: ProcessManifest, plan: Path) -> str:
    """Equal for two processes of one allocation that are the same: node, GPUs, command, environment, and the
    content of every file of the plan that they name. Raises OSError where such a file is missing."""
    named = set(_PLAN_FILE.findall(" ".join([*process.argv, *process.env.values()])))
    files = {name: hashlib.sha256((plan / name).read_bytes()).hexdigest() for name in named}
    what = [process.name, process.node_index, process.gpus, process.argv, dict(process.env), files]
    where = [launch.container, launch.gpus_per_node]
    return hashlib.sha256(json.dumps([what, where], sort_keys=True).encode()).hexdigest()


def stop_in_order(running: Sequence[ManagedProcess], stop_s: float, say: PrintLine) -> None:
    """End the client, then frontend and workers, then what they register with.

    Each is asked first, and killed when it has not ended `stop_s` later.
    """
    for roles in (("client",), ("frontend", *ENGINES), SERVICES):
        stop_group([r for r in running if r.process.role in roles], stop_s, say)


def stop_group(running: Sequence[ManagedProcess], stop_s: float, say: PrintLine) -> None:
    """End all of them at once, as `stop_in_order` does one group."""
    asked = [one for one in running if one.started.poll() is None]
    for one in asked:
        one.started.terminate()
    until_s = time.monotonic() + stop_s
    while alive := [one for one in asked if one.started.poll() is None]:
        if time.monotonic() > until_s:
            names = ", ".join(one.name for one in alive)
            say(f"killing what did not end within {stop_s:g} s: {names}")
            for one in alive:
                one.started.kill()
            until_s = time.monotonic() + stop_s
        time.sleep(POLL_S)


def describe_exit(code: int) -> str:
    """How a process ended, in words. A shell and srun tell of a signal by an exit code above 128."""
    if code < 0:
        return f"by {signal.Signals(-code).name}"
    told = {128 + number: f" ({number.name})" for number in signal.Signals}
    return f"with exit code {code}{told.get(code, '')}"


def format_counts(processes: Sequence[Process], counts: Mapping[str, float]) -> str:
    """`prefill_w0 3, prefill_w1 none`: what each process has of `counts`."""
    return ", ".join(f"{p.name} {int(counts[p.name]) or 'none'}" for p in processes if p.name in counts)
