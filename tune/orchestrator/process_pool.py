"""Hold the processes that run on the nodes of an orchestrator, from attempt to attempt."""

from __future__ import annotations

from pathlib import Path

from tune.manifest.process_manifest import ProcessManifest
from tune.orchestrator.managed_process import (
    SERVICES,
    ManagedProcess,
    PrintLine,
    fingerprint,
    stop_group,
    stop_in_order,
)
from tune.orchestrator.supervision.process_tree import kill_descendants

_STOP_S = 10.0


class ManagedProcesses:
    """Hold the processes that were started and not stopped, in the order of their start.

    `last`: no attempt follows the current one.
    """

    def __init__(self, print_line: PrintLine, *, last: bool) -> None:
        self.running: list[ManagedProcess] = []
        self.last = last
        self._print_line, self._stop_s, self._keeps_processes = print_line, _STOP_S, False

    def keep_reusable(self, manifest: ProcessManifest, plan: Path) -> None:
        """End every process that `manifest` would start differently.

        If a service or the frontend changed, stop everything, because workers are registered with it. Raises
        OSError where a file of the plan is missing.
        """
        fingerprints = {process.name: fingerprint(process, manifest, plan) for process in manifest.processes}
        alive = [process for process in self.running if process.handle.poll() is None]
        reusable = [process for process in alive if fingerprints.get(process.name) == process.fingerprint]
        needed = {p.name for p in manifest.processes if p.role in (*SERVICES, "frontend")}
        if not manifest.keeps_processes or not needed <= {process.name for process in reusable}:
            reusable = []
        names = {process.name for process in reusable}
        others = [process for process in self.running if process.name not in names]
        if self.running:
            self._print_line(f"keeping {len(reusable)} of {len(self.running)} processes, stopping the others")
        stop_in_order(others, self._stop_s, self._print_line)
        self.running[:] = reusable
        self._stop_s, self._keeps_processes = manifest.deadlines.stop_s, manifest.keeps_processes

    def finish_attempt(self, *, measured: bool) -> None:
        """End the processes that the next attempt cannot reuse; after a failure, all processes."""
        if measured and self._keeps_processes and not self.last:
            self.stop_client(self._stop_s)
        else:
            self.stop()

    def shorten_deadline(self, stop_s: float) -> None:
        """Give every process at most `stop_s` seconds to end from now on."""
        self._stop_s = min(self._stop_s, stop_s)

    def stop_client(self, within_s: float) -> None:
        """End the client, which writes its record; kill it when it has not ended `within_s` later."""
        clients = [process for process in self.running if process.process.role == "client"]
        stop_group(clients, within_s, self._print_line)
        self.running[:] = [process for process in self.running if process not in clients]

    def stop(self) -> None:
        """End all processes in order, each step within the plan's `stop_s`, and kill survivors."""
        stop_in_order(self.running, self._stop_s, self._print_line)
        self.running.clear()
        survivors = kill_descendants()
        self._print_line(
            "stopped" if not survivors else f"stopped; {survivors} processes that it had started were killed"
        )
