"""Wait until services listen, every worker is registered and the model is served."""

from __future__ import annotations

import argparse
import socket
import time
from collections.abc import Callable, Hashable

from tune.deploy import ready
from tune.manifest.process import Process
from tune.orchestrator.deployment import Deployment
from tune.orchestrator.failures import AttemptFailed, last_lines
from tune.orchestrator.managed_process import POLL_S, PrintLine
from tune.orchestrator.refusals import RefusalWatch
from tune.orchestrator.worker_metrics import scrape

_CONNECT_TIMEOUT_S = 2.0
_LOGS_SHOWN = 3


class ProgressDeadline:
    """Hold a deadline that moves with every progress, up to a last one. Times are seconds of `clock`."""

    def __init__(self, quiet_s: float, ready_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet_s, self._ready_s, self.clock = quiet_s, ready_s, clock
        self._began_s = self._moved_s = clock()
        self._state: Hashable = None

    def over(self, state: Hashable) -> str | None:
        """Return why waiting is over, None while it is not. A new `state` is progress."""
        now_s = self.clock()
        if state != self._state:
            self._state, self._moved_s = state, now_s
        if now_s - self._began_s > self._ready_s:
            return f"not within {self._ready_s:g} s (cluster.deadlines.ready_s)"
        if now_s - self._moved_s > self._quiet_s:
            return f"nothing moved for {self._quiet_s:g} s (cluster.deadlines.quiet_s)"
        return None


def bring_up(deployment: Deployment, deadline: ProgressDeadline, print_line: PrintLine) -> None:
    """Start the services, frontend and workers that do not run; return once every worker is registered.

    Raises AttemptFailed, with the missing processes and the ends of their logs, where a process ends or
    `deadline` is reached.
    """
    for service in deployment.services():
        if not deployment.is_running(service):
            deployment.start(service)
            _await_port(deployment, service, deadline)
            print_line(f"{service.name} listens on port {service.listens[0].number}")
    missing = [process for process in deployment.servers() if not deployment.is_running(process)]
    if len(missing) < len(deployment.servers()):
        _await_departures(deployment, deadline, print_line)
    for process in missing:
        deployment.start(process)
    print_line(f"started {len(missing)} processes")
    _await_registration(deployment, deadline, print_line)


def _await_departures(deployment: Deployment, deadline: ProgressDeadline, print_line: PrintLine) -> None:
    """Return once only the kept workers are registered: one that left must not count for one that starts."""
    query = _question(deployment)
    pools = deployment.pools()
    kept = [sum(deployment.is_running(worker) for worker in pool) for pool in pools]
    while True:
        deployment.require_alive()
        try:
            state = str(registration := ready.query_registration(query))
            if registration.agreed and [present for _, present, _ in registration.counts] == kept:
                return
        except (OSError, ValueError) as error:
            state = f"not answering: {error}"
        over = deadline.over((state, deployment.new_lines()))
        if over:
            raise AttemptFailed(
                f"Workers of the trial before are still registered: {over}. Found {state}; expected "
                f"{' and '.join(f'{n} {pool[0].role}' for n, pool in zip(kept, pools, strict=True))} workers "
                "before the others start."
            )
        time.sleep(POLL_S)


def _question(deployment: Deployment) -> argparse.Namespace:
    """Return the query for the registered workers, with addresses filled in."""
    return ready.parse_arguments(
        [deployment.bind(text) for text in deployment.manifest.readiness_command[2:]]
    )


def registered_instances(deployment: Deployment) -> list[list[int]]:
    """Return the instance ids of the workers of each pool, none where the frontend names none."""
    try:
        return ready.query_instances(_question(deployment))
    except (OSError, ValueError):
        return [[] for _ in deployment.pools()]


def _await_port(deployment: Deployment, service: Process, deadline: ProgressDeadline) -> None:
    """Return once `service` listens. Raises AttemptFailed where the deadline ends."""
    port = service.listens[0]
    while True:
        deployment.require_alive()
        try:
            address = (deployment.nodes.addresses[service.node_index], port.number)
            with socket.create_connection(address, _CONNECT_TIMEOUT_S):
                return
        except OSError:
            over = deadline.over(deployment.new_lines((service.role,)))
        if over:
            raise AttemptFailed(
                f"{service.name} does not listen on {port.setting}={port.number}: {over}; the last lines "
                f"of its log:\n{last_lines(deployment.log_of(service))}"
            )
        time.sleep(POLL_S)


def _await_registration(deployment: Deployment, deadline: ProgressDeadline, print_line: PrintLine) -> None:
    """Return once every worker is registered and the model is served. Raises AttemptFailed."""
    query = _question(deployment)
    refusals = RefusalWatch(deployment, deadline.clock)
    last_state, registration = "", None
    while True:
        deployment.require_alive()
        refusals.require_none()
        try:
            registration = ready.query_registration(query)
            state = str(registration)
        except (OSError, ValueError) as error:
            state = f"not answering yet: {error}"
        if state != last_state:
            print_line(state)
        last_state = state
        if registration and registration.complete:
            return
        over = deadline.over((state, deployment.new_lines()))
        if over:
            raise AttemptFailed(
                f"The deployment did not get ready: {over}. {state}.\n{_missing(deployment, registration)}",
                evidence=deployment.waiting_evidence(),
            )
        time.sleep(POLL_S)


def _missing(deployment: Deployment, registration: ready.Registration | None) -> str:
    """Return the names of missing workers, as far as they are known, and the ends of their logs."""
    suspects: list[Process] = (
        [] if registration else [p for p in deployment.servers() if p.role == "frontend"]
    )
    lines = []
    for workers, (_, present, wanted) in zip(
        deployment.pools(), registration.counts if registration else (), strict=False
    ):
        if present >= wanted:
            continue
        silent = [p for p in workers if p.metrics_port is not None and not _answers(deployment, p)]
        missing = silent if len(silent) == wanted - present else list(workers)
        names = ", ".join(p.name for p in missing)
        lines.append(f"Missing: {wanted - present} of {'' if missing is silent else 'the workers '}{names}.")
        suspects += missing
    shown = suspects or [p for p in deployment.servers() if p.role == "frontend"]
    lines += [last_lines(deployment.log_of(process)) for process in shown[:_LOGS_SHOWN]]
    if len(shown) > _LOGS_SHOWN:
        lines.append(f"  The logs of {len(shown) - _LOGS_SHOWN} more lie beside these.")
    return "\n".join(lines)


def _answers(deployment: Deployment, process: Process) -> bool:
    """Return whether the metrics port of `process` answers."""
    try:
        scrape(process, deployment.nodes)
    except OSError:
        return False
    return True
