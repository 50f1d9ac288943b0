"""The processes of an attempt: bound to their nodes, started, watched."""

from __future__ import annotations

import os
from pathlib import Path

from tune.manifest.process import Process, bind_text
from tune.manifest.process_manifest import ProcessManifest
from tune.orchestrator.failures import (
    AllocationRevoked,
    AttemptFailed,
    FailureCause,
    classify_failure,
    last_lines,
)
from tune.orchestrator.launcher import NodeAddresses, ProcessLauncher, ResolvedProcess
from tune.orchestrator.managed_process import ENGINES, SERVICES, ManagedProcess, describe_exit, fingerprint
from tune.orchestrator.supervision.signals import defer_signals


class Deployment:
    """What runs of `launch`, in the attempt's folder `raw`.

    `running`: what an earlier attempt has left of it; what is started is appended.
    """

    def __init__(
        self,
        launch: ProcessManifest,
        nodes: NodeAddresses,
        starter: ProcessLauncher,
        running: list[ManagedProcess],
        *,
        plan: Path,
        raw: Path,
    ) -> None:
        self.launch, self.nodes = launch, nodes
        self._plan, self._raw, self._starter = plan, raw, starter
        self._values = {
            "HEAD_NODE": nodes.hosts[0],
            "HEAD_NODE_IP": nodes.addresses[0],
            "PLAN_DIR": str(plan),
            "RAW_DIR": str(raw),
            "SCRATCH_DIR": str(starter.scratch),
        }
        self._running = running
        for kept in running:
            log = self.log_of(kept.process)
            log.parent.mkdir(parents=True, exist_ok=True)
            log.symlink_to(os.path.relpath(kept.log, log.parent))

    def bind(self, text: str, node_index: int = 0) -> str:
        """`text` of the plan with every placeholder filled, as a process on that node is told."""
        own = {"NODE": self.nodes.hosts[node_index], "NODE_IP": self.nodes.addresses[node_index]}
        return bind_text(text, self._values | own)

    def services(self) -> tuple[Process, ...]:
        """What has to answer before anything else starts."""
        return tuple(p for p in self.launch.processes if p.role in SERVICES)

    def servers(self) -> tuple[Process, ...]:
        """Frontend and workers, in the order in which they start."""
        return tuple(p for p in self.launch.processes if p.role not in (*SERVICES, "client"))

    def workers(self, role: str | None = None) -> tuple[Process, ...]:
        """The workers of one role, or of both."""
        return tuple(p for p in self.launch.processes if p.role in ((role,) if role else ENGINES))

    def client(self) -> Process:
        return self.launch.processes[-1]

    def runs(self, process: Process) -> bool:
        """Whether it was started, here or by an earlier attempt."""
        return any(running.name == process.name for running in self._running)

    def start(self, process: Process) -> ManagedProcess:
        """Start one process of the plan. Raises Broken where it cannot be started.

        A signal to stop waits meanwhile: raised between fork and exec it would be lost, for Python then runs
        hooks whose exceptions it only prints, and what is started would not be known here.
        """
        bound = self._bound(process)
        bound.log.parent.mkdir(parents=True, exist_ok=True)
        with defer_signals(last=False):
            running = self._started(process, bound)
            self._running.append(running)
        return running

    def _started(self, process: Process, bound: ResolvedProcess) -> ManagedProcess:
        try:
            mark = fingerprint(process, self.launch, self._plan)
            return ManagedProcess(process, self._starter.start(bound), bound.log, mark)
        except OSError as error:
            what = f"{error.filename or bound.argv[0]!r}: {error.strerror or error}"
            raise AttemptFailed(
                f"{process.name} could not be started: {what}. Expected a program on the PATH; install what "
                "the stack needs."
            ) from error

    def _bound(self, process: Process) -> ResolvedProcess:
        node = process.node_index
        container = tuple(self.bind(option) for option in self.launch.container)
        if container and set(",:") & set(f"{self._plan}{self._starter.scratch}"):
            raise AttemptFailed(
                f"{self._plan}: found a colon or comma in the path, at which pyxis splits mounts. Expected "
                "none with cluster.container_image; change runs_dir or study.name."
            )
        if self.launch.keeps_containers:
            container += (f"--container-name=tune_{process.name}",)
        return ResolvedProcess(
            process=process,
            hosts=tuple(self.nodes.hosts[index] for index in process.nodes),
            argv=tuple(self.bind(text, node) for text in process.argv),
            env={name: self.bind(value, node) for name, value in process.env.items()},
            log=self.log_of(process),
            container=container,
            gpus_per_node=self.launch.gpus_per_node,
        )

    def require_alive(self) -> None:
        """Raises Broken where a process that serves has ended, whatever its exit code."""
        for running in self._running:
            if running.process.role == "client":
                continue
            code = running.started.poll()
            if code is not None:
                self.require_lent()
                cause: FailureCause = "infrastructure"
                if running.process.role in ENGINES:
                    cause = classify_failure(running.log, self.launch.engine.failure_patterns)
                raise AttemptFailed(
                    f"{running.name} ended {describe_exit(code)} before the client did; the last lines of its log:\n"
                    f"{last_lines(running.log)}",
                    cause,
                )

    def require_lent(self) -> None:
        """Raises Withdrawn where the nodes are taken back, which ends processes that are not to blame."""
        if why := self._starter.withdrawn():
            raise AllocationRevoked(why)

    def logged_bytes(self) -> int:
        """Size of all logs together: it grows as long as something happens."""
        return sum(running.log.stat().st_size for running in self._running if running.log.exists())

    def log_of(self, process: Process) -> Path:
        return self._raw / self.bind(process.log, process.node_index)
