"""Everything that runs on the nodes of an orchestrator, from attempt to attempt."""

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
    """`running`: what was started and not ended here, in order. `last`: no attempt follows this one."""

    def __init__(self, say: PrintLine, *, last: bool) -> None:
        self.running: list[ManagedProcess] = []
        self.last = last
        self._say, self._stop_s, self._keeps = say, _STOP_S, False

    def retain(self, launch: ProcessManifest, plan: Path) -> None:
        """End what `launch` would not start in the same way.

        Where services and frontend are not the same, that is everything: workers have registered there.
        Raises OSError where a file of the plan is missing.
        """
        marks = {process.name: fingerprint(process, launch, plan) for process in launch.processes}
        alive = [one for one in self.running if one.started.poll() is None]
        same = [one for one in alive if marks.get(one.name) == one.fingerprint]
        needed = {p.name for p in launch.processes if p.role in (*SERVICES, "frontend")}
        if not launch.keeps_processes or not needed <= {one.name for one in same}:
            same = []
        names = {one.name for one in same}
        others = [one for one in self.running if one.name not in names]
        if self.running:
            self._say(f"of {len(self.running)} processes {len(same)} go on, the others are ended")
        stop_in_order(others, self._stop_s, self._say)
        self.running[:] = same
        self._stop_s, self._keeps = launch.deadlines.stop_s, launch.keeps_processes

    def settle(self, *, measured: bool) -> None:
        """After an attempt: end what the next one has no use for; everything, where something broke."""
        if measured and self._keeps and not self.last:
            self.stop_client(self._stop_s)
        else:
            self.stop()

    def hurry(self, stop_s: float) -> None:
        """From now on nothing has more than `stop_s` to end."""
        self._stop_s = min(self._stop_s, stop_s)

    def stop_client(self, within_s: float) -> None:
        """End the client, which writes what it knows; killed when it has not ended `within_s` later."""
        clients = [one for one in self.running if one.process.role == "client"]
        stop_group(clients, within_s, self._say)
        self.running[:] = [one for one in self.running if one not in clients]

    def stop(self) -> None:
        """End everything in order, within the plan's `stop_s` for each step, and whatever it has left."""
        stop_in_order(self.running, self._stop_s, self._say)
        self.running.clear()
        left = kill_descendants()
        self._say("stopped" if not left else f"stopped; {left} processes that it had started were killed")
