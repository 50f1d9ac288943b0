"""The processes of an attempt: started in order, watched, stopped in the opposite order."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tune.deploy.launch import Launch
from tune.deploy.process import Process, bind_text
from tune.orchestrate.broken import Broken, blame, last_lines
from tune.orchestrate.starter import Started, Starter

Say = Callable[[str], None]

POLL_S = 0.1

_SERVICES = ("etcd", "nats")
_ENGINES = ("prefill", "decode")


@dataclass(frozen=True)
class Nodes:
    """`hosts`: host name of each node index. `addresses`: where the other nodes reach it."""

    hosts: tuple[str, ...]
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Running:
    """One process that was started and where its output goes."""

    process: Process
    started: Started
    log: Path

    @property
    def name(self) -> str:
        return self.process.name


class Deployment:
    """What was started of `launch` so far, in the attempt's folder `raw`. `say` hears what happens."""

    def __init__(
        self, launch: Launch, nodes: Nodes, starter: Starter, *, plan: Path, raw: Path, say: Say
    ) -> None:
        self.launch, self.nodes = launch, nodes
        self._raw, self._starter, self._say = raw, starter, say
        self._values = {
            "HEAD_NODE": nodes.hosts[0],
            "HEAD_NODE_IP": nodes.addresses[0],
            "PLAN_DIR": str(plan),
            "RAW_DIR": str(raw),
            "SCRATCH_DIR": str(starter.scratch),
        }
        self._running: list[Running] = []

    def bind(self, text: str, node_index: int = 0) -> str:
        """`text` of the plan with every placeholder filled, as a process on that node is told."""
        own = {"NODE": self.nodes.hosts[node_index], "NODE_IP": self.nodes.addresses[node_index]}
        return bind_text(text, self._values | own)

    def services(self) -> tuple[Process, ...]:
        """What has to answer before anything else starts."""
        return tuple(p for p in self.launch.processes if p.role in _SERVICES)

    def servers(self) -> tuple[Process, ...]:
        """Frontend and workers, in the order in which they start."""
        return tuple(p for p in self.launch.processes if p.role not in (*_SERVICES, "client"))

    def workers(self, role: str | None = None) -> tuple[Process, ...]:
        """The workers of one role, or of both."""
        return tuple(p for p in self.launch.processes if p.role in ((role,) if role else _ENGINES))

    def client(self) -> Process:
        return self.launch.processes[-1]

    def start(self, process: Process) -> Running:
        """Start one process of the plan. Raises Broken where it cannot be started."""
        log = self.log_of(process)
        log.parent.mkdir(parents=True, exist_ok=True)
        env = {name: self.bind(value, process.node_index) for name, value in process.env.items()}
        argv = [self.bind(text, process.node_index) for text in process.argv]
        try:
            started = self._starter.start(process, argv, env, log)
        except OSError as error:
            raise Broken(
                f"{process.name} could not be started: {argv[0]!r}: {error.strerror or error}. Expected a "
                "program on the PATH; install what the stack needs."
            ) from error
        running = Running(process, started, log)
        self._running.append(running)
        return running

    def require_alive(self) -> None:
        """Raises Broken where a process that serves has ended, whatever its exit code."""
        for running in self._running:
            if running.process.role == "client":
                continue
            code = running.started.poll()
            if code is not None:
                cause = blame(running.log) if running.process.role in _ENGINES else "world"
                raise Broken(
                    f"{running.name} ended {ending(code)} before the client did; the last lines of its log:\n"
                    f"{last_lines(running.log)}",
                    cause,
                )

    def logged_bytes(self) -> int:
        """Size of all logs together: it grows as long as something happens."""
        return sum(running.log.stat().st_size for running in self._running if running.log.exists())

    def log_of(self, process: Process) -> Path:
        return self._raw / self.bind(process.log, process.node_index)

    def stop(self) -> None:
        """End everything: the client, then frontend and workers, then what they register with.

        Each is asked first, and killed when it has not ended `stop_s` later.
        """
        for roles in (("client",), ("frontend", *_ENGINES), _SERVICES):
            self._end([r for r in self._running if r.process.role in roles and r.started.poll() is None])

    def _end(self, asked: Sequence[Running]) -> None:
        for running in asked:
            running.started.terminate()
        until_s = time.monotonic() + self.launch.deadlines.stop_s
        while alive := [running for running in asked if running.started.poll() is None]:
            if time.monotonic() > until_s:
                names = ", ".join(running.name for running in alive)
                self._say(f"killing what did not end within {self.launch.deadlines.stop_s:g} s: {names}")
                for running in alive:
                    running.started.kill()
                until_s = float("inf")
            time.sleep(POLL_S)


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"with exit code {code}"
    return f"by {signal.Signals(-code).name}"


def by_name(processes: Sequence[Process], counts: Mapping[str, float]) -> str:
    """`prefill_w0 3, prefill_w1 none`: what each process has of `counts`."""
    return ", ".join(f"{p.name} {int(counts[p.name]) or 'none'}" for p in processes if p.name in counts)
