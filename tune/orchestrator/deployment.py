"""Bind the processes of an attempt to their nodes, start and watch them."""

from __future__ import annotations

import os
from collections.abc import Collection
from itertools import groupby
from pathlib import Path

from tune.core.files import make_folder
from tune.manifest.process import DISCOVERY_FOLDER, Process, address_values, bind_text
from tune.manifest.process_manifest import ProcessManifest
from tune.orchestrator.failures import AttemptFailed, last_lines, log_evidence
from tune.orchestrator.launcher import NodeAddresses, ProcessLauncher, ResolvedProcess
from tune.orchestrator.managed_process import (
    SERVICES,
    WORKER_ROLES,
    ManagedProcess,
    describe_exit,
    fingerprint,
)
from tune.orchestrator.new_lines import NewLines
from tune.orchestrator.registrations import keep_registered
from tune.orchestrator.supervision.signals import defer_signals
from tune.records.folders import trial_of
from tune.spec.failure import FailureEvidence


class Deployment:
    """Hold the processes of `manifest` that run for the attempt in the folder `raw`.

    `running` holds the processes that an earlier attempt left; those started here are appended.
    """

    def __init__(
        self,
        manifest: ProcessManifest,
        nodes: NodeAddresses,
        launcher: ProcessLauncher,
        running: list[ManagedProcess],
        *,
        plan: Path,
        raw: Path,
    ) -> None:
        self.manifest, self.nodes = manifest, nodes
        self._plan, self._raw, self._launcher = plan, raw, launcher
        self._values = {
            "HEAD_NODE": nodes.hosts[0],
            **address_values(nodes.addresses),
            "PLAN_DIR": str(plan),
            "RAW_DIR": str(raw),
            "SCRATCH_DIR": str(launcher.scratch),
        }
        self._running = running
        make_folder(raw)
        self._read_logs: dict[Path, NewLines] = {}
        for kept in running:
            log = self.log_of(kept.process)
            make_folder(log.parent)
            log.symlink_to(os.path.relpath(kept.log, log.parent))

    def bind(self, text: str, node_index: int = 0) -> str:
        """Return `text` of the plan with every placeholder filled in for a process on that node."""
        node_values = {"NODE": self.nodes.hosts[node_index], "NODE_IP": self.nodes.addresses[node_index]}
        return bind_text(text, self._values | node_values)

    def services(self) -> tuple[Process, ...]:
        """Return the processes that must answer before any other starts."""
        return tuple(p for p in self.manifest.processes if p.role in SERVICES)

    def servers(self) -> tuple[Process, ...]:
        """Return frontends and workers, in the order in which they start."""
        return tuple(p for p in self.manifest.processes if p.role not in (*SERVICES, "client"))

    def workers(self) -> tuple[Process, ...]:
        """Return the workers, in the order of their pools."""
        return tuple(p for p in self.manifest.processes if p.role in WORKER_ROLES)

    def pools(self) -> tuple[tuple[Process, ...], ...]:
        """Return the workers of each pool, in the order in which the plan expects them to register."""
        return tuple(tuple(pool) for _, pool in groupby(self.workers(), lambda worker: worker.role))

    def client(self) -> Process:
        """Return the load client."""
        return self.manifest.processes[-1]

    def frontends(self) -> tuple[Process, ...]:
        """Return the frontends, in the order of the plan's `endpoint_urls`."""
        return tuple(p for p in self.manifest.processes if p.role == "frontend")

    def is_running(self, process: Process) -> bool:
        """Return whether `process` was started, here or by an earlier attempt."""
        return any(running.name == process.name for running in self._running)

    def start(self, process: Process) -> ManagedProcess:
        """Start one process of the plan. Raises AttemptFailed where it cannot be started.

        A signal to stop is deferred meanwhile. Raised between fork and exec it would be lost, for Python then
        runs hooks whose exceptions it only prints, and the new process would not be known here.
        """
        resolved = self._resolve(process)
        make_folder(resolved.log.parent)
        with defer_signals(last=False):
            running = self._launch(process, resolved)
            self._running.append(running)
        return running

    def release(self, ended: ManagedProcess) -> None:
        """Forget a process that has ended as it should."""
        self._running.remove(ended)

    def _launch(self, process: Process, resolved: ResolvedProcess) -> ManagedProcess:
        """Launch `resolved`. Raises AttemptFailed where it cannot be started."""
        try:
            process_fingerprint = fingerprint(process, self.manifest, self._plan)
            return ManagedProcess(process, self._launcher.start(resolved), resolved.log, process_fingerprint)
        except OSError as error:
            fault = f"{error.filename or resolved.argv[0]!r}: {error.strerror or error}"
            raise AttemptFailed(
                f"{process.name} could not be started: {fault}. Expected a program on the PATH; install what "
                "the stack needs."
            ) from error

    def _resolve(self, process: Process) -> ResolvedProcess:
        """Return `process` with every placeholder filled in.

        Raises AttemptFailed for paths that pyxis would split.
        """
        node = process.node_index
        container = tuple(self.bind(option) for option in self.manifest.container)
        if container and set(",:") & set(f"{self._plan}{self._launcher.scratch}"):
            raise AttemptFailed(
                f"{self._plan}: found a colon or comma in the path, at which pyxis splits mounts. Expected "
                "none with cluster.container_image; change runs_dir or study.name."
            )
        if self.manifest.keeps_containers:
            container += (f"--container-name=tune_{process.name}",)
        return ResolvedProcess(
            process=process,
            hosts=tuple(self.nodes.hosts[index] for index in process.nodes),
            argv=tuple(self.bind(text, node) for text in process.argv),
            env={name: self.bind(value, node) for name, value in process.env.items()},
            log=self.log_of(process),
            container=container,
            gpus_per_node=self.manifest.gpus_per_node,
            srun_env=self.manifest.srun_env,
            srun_options=self.manifest.srun_options,
            mpi=self.manifest.mpi,
        )

    def require_alive(self) -> None:
        """Raise AttemptFailed where a process that serves has ended, whatever its exit code.

        This is called again and again while something waits, so registrations are kept alive here, too.
        """
        keep_registered(self._launcher.scratch / DISCOVERY_FOLDER)
        for running in self._running:
            if running.process.role == "client":
                continue
            code = running.handle.poll()
            if code is not None:
                raise AttemptFailed(
                    f"{running.name} ended {describe_exit(code)} before the client did; the last "
                    f"lines of its log:\n{last_lines(running.log)}",
                    evidence=self.evidence(running),
                )

    def running_workers(self) -> list[ManagedProcess]:
        """Return the workers that were started, here or by an earlier attempt."""
        return [running for running in self._running if running.process.role in WORKER_ROLES]

    def evidence(self, running: ManagedProcess) -> FailureEvidence | None:
        """Return the line of a process's log that tells why it failed, None where none does."""
        rules = self.manifest.engine.failure_rules if running.process.role in WORKER_ROLES else ()
        return log_evidence(running.log, rules, trial_of(self._raw).root)

    def waiting_evidence(self) -> FailureEvidence | None:
        """Return the line of a worker's log that tells why the deployment keeps everybody waiting.

        An engine that rejects its configuration explains the wait of all others.
        """
        found = [evidence for worker in self.running_workers() if (evidence := self.evidence(worker))]
        rejected = (evidence for evidence in found if evidence.cause == "configuration")
        return next(rejected, found[0] if found else None)

    def new_lines(self, roles: Collection[str] = WORKER_ROLES) -> int:
        """Return how many new lines the logs of these roles have: more as long as their processes work.

        The frontend's log tells nothing of the workers: it grows with every question that is asked here.
        """
        return sum(self.new_lines_of(running) for running in self._running if running.process.role in roles)

    def new_lines_of(self, running: ManagedProcess) -> int:
        """Return how many lines of a process's log say something new."""
        return self._read_logs.setdefault(running.log, NewLines(running.log)).count()

    def log_of(self, process: Process) -> Path:
        """Return the log of `process` in this attempt."""
        return self._raw / self.bind(process.log, process.node_index)
