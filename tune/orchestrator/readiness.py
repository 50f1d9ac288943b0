"""Waiting until all is there, counted: services that listen, every worker registered, the model served."""

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
from tune.orchestrator.worker_metrics import scrape

_CONNECT_TIMEOUT_S = 2.0
_LOGS_SHOWN = 3


class ProgressDeadline:
    """A deadline that moves on with every progress, up to a last one. Times are those of `clock`, seconds."""

    def __init__(self, quiet_s: float, ready_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet_s, self._ready_s, self._clock = quiet_s, ready_s, clock
        self._began_s = self._moved_s = clock()
        self._state: Hashable = None

    def over(self, state: Hashable) -> str | None:
        """Why waiting is over, None while it is not. A `state` that differs from the last is progress."""
        now_s = self._clock()
        if state != self._state:
            self._state, self._moved_s = state, now_s
        if now_s - self._began_s > self._ready_s:
            return f"not within {self._ready_s:g} s (cluster.deadlines.ready_s)"
        if now_s - self._moved_s > self._quiet_s:
            return f"nothing moved for {self._quiet_s:g} s (cluster.deadlines.quiet_s)"
        return None


def bring_up(deployment: Deployment, patience: ProgressDeadline, say: PrintLine) -> None:
    """Start the services, frontend and workers that do not run; return once every worker is registered.

    Raises Broken where something ends or the patience does, with who is missing and the end of their logs.
    """
    for service in deployment.services():
        if not deployment.runs(service):
            deployment.start(service)
            _await_port(deployment, service, patience)
            say(f"{service.name} listens on port {service.listens[0].number}")
    missing = [process for process in deployment.servers() if not deployment.runs(process)]
    if len(missing) < len(deployment.servers()):
        _await_departures(deployment, patience, say)
    for process in missing:
        deployment.start(process)
    say(f"started {len(missing)} processes")
    _await_registration(deployment, patience, say)


def _await_departures(deployment: Deployment, patience: ProgressDeadline, say: PrintLine) -> None:
    """Return once only the kept workers are registered: who left must not be counted for who comes."""
    asked = _question(deployment)
    kept = [sum(deployment.runs(p) for p in deployment.workers(role)) for role in ("prefill", "decode")]
    while True:
        deployment.require_alive()
        try:
            state = str(found := ready.query_registration(asked))
            if [there for _, there, _ in found.counts] == kept:
                return
        except (OSError, ValueError) as error:
            state = f"not answering: {error}"
        over = patience.over((state, deployment.logged_bytes()))
        if over:
            raise AttemptFailed(
                f"Workers of the trial before are still registered: {over}. Found {state}; expected "
                f"{kept[0]} prefill and {kept[1]} decode workers before the others start."
            )
        time.sleep(POLL_S)


def _question(deployment: Deployment) -> argparse.Namespace:
    return ready.parse_arguments([deployment.bind(text) for text in deployment.launch.ready[2:]])


def _await_port(deployment: Deployment, service: Process, patience: ProgressDeadline) -> None:
    port = service.listens[0]
    while True:
        deployment.require_alive()
        try:
            address = (deployment.nodes.addresses[service.node_index], port.number)
            with socket.create_connection(address, _CONNECT_TIMEOUT_S):
                return
        except OSError:
            over = patience.over(deployment.logged_bytes())
        if over:
            raise AttemptFailed(
                f"{service.name} does not listen on {port.setting}={port.number}: {over}; the last lines "
                f"of its log:\n{last_lines(deployment.log_of(service))}"
            )
        time.sleep(POLL_S)


def _await_registration(deployment: Deployment, patience: ProgressDeadline, say: PrintLine) -> None:
    asked = _question(deployment)
    told, found = "", None
    while True:
        deployment.require_alive()
        try:
            found = ready.query_registration(asked)
            state = str(found)
        except (OSError, ValueError) as error:
            state = f"not answering yet: {error}"
        if state != told:
            say(state)
        told = state
        if found and found.complete:
            return
        over = patience.over((state, deployment.logged_bytes()))
        if over:
            raise AttemptFailed(
                f"The deployment did not get ready: {over}. {state}.\n{_missing(deployment, found)}"
            )
        time.sleep(POLL_S)


def _missing(deployment: Deployment, found: ready.Registration | None) -> str:
    """Who is missing, as far as can be told, and the end of their logs."""
    suspects: list[Process] = [] if found else [p for p in deployment.servers() if p.role == "frontend"]
    lines = []
    for role, (_, there, wanted) in zip(("prefill", "decode"), found.counts if found else (), strict=False):
        if there >= wanted:
            continue
        workers = deployment.workers(role)
        silent = [p for p in workers if p.metrics_port is not None and not _answers(deployment, p)]
        missing = silent if len(silent) == wanted - there else list(workers)
        names = ", ".join(p.name for p in missing)
        lines.append(f"Missing: {wanted - there} of {'' if missing is silent else 'the workers '}{names}.")
        suspects += missing
    shown = suspects or [p for p in deployment.servers() if p.role == "frontend"]
    lines += [last_lines(deployment.log_of(process)) for process in shown[:_LOGS_SHOWN]]
    if len(shown) > _LOGS_SHOWN:
        lines.append(f"  The logs of {len(shown) - _LOGS_SHOWN} more lie beside these.")
    return "\n".join(lines)


def _answers(deployment: Deployment, process: Process) -> bool:
    try:
        scrape(process, deployment.nodes)
    except OSError:
        return False
    return True
