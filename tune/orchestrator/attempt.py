"""Run one attempt, from free ports to its record, on a laptop as in an allocation."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tune.client.accuracy_needs import require_accuracy_needs
from tune.client.client_settings import ClientSettings, read_client_settings
from tune.errors import TuneError
from tune.manifest.process_manifest import ACCURACY_CLIENT_FILE, read_manifest
from tune.orchestrator.accepted_arguments import require_accepted_arguments
from tune.orchestrator.deployment import Deployment
from tune.orchestrator.failures import AllocationRevoked, AttemptFailed, explained, message_evidence
from tune.orchestrator.image_digest import ImageDigest
from tune.orchestrator.launcher import NodeAddresses, ProcessLauncher
from tune.orchestrator.managed_process import PrintLine
from tune.orchestrator.node_evidence import collected_evidence
from tune.orchestrator.phases import PhaseTimer
from tune.orchestrator.preflight import require_checkpoint, require_free_ports
from tune.orchestrator.probes import ProbeRunner
from tune.orchestrator.process_pool import ManagedProcesses
from tune.orchestrator.readiness import ProgressDeadline, bring_up
from tune.orchestrator.supervision.signals import Interrupted, defer_signals
from tune.orchestrator.warm_up import warm_up
from tune.orchestrator.worker_load import wait_until_drained
from tune.records.attempt_limit import read_limit
from tune.records.attempt_record import AttemptRecord
from tune.records.folders import trial_of, write_attempt
from tune.spec.failure import FailureCause

EXIT_INTERRUPTED = 130
"""Exit code of an attempt that was interrupted; no other attempt should follow it."""

_EXIT_CODES: dict[FailureCause, int] = {"configuration": 1, "infrastructure": 3, "harness": 3}

_FINAL_WRITE_S = 2.0
"""Seconds for a client to write its record, and after an interrupt for every process to end.

Slurm kills the rest KillWait seconds after the signal.
"""

AllocateNodes = Callable[[int], NodeAddresses]
"""Return the hosts of a number of nodes by node index; those named like node 0 are this host."""


@dataclass(frozen=True)
class _RunningAttempt:
    """Hold an attempt that runs since `started_at`, which is `started_s` of the monotonic clock."""

    attempt: Path
    started_at: datetime
    started_s: float
    print_line: PrintLine
    timer: PhaseTimer
    image: ImageDigest

    @property
    def elapsed_s(self) -> float:
        """Return how long the attempt has run, in seconds."""
        return time.monotonic() - self.started_s

    def record(self, failure: AttemptFailed | None, failed_nodes: tuple[str, ...] = ()) -> None:
        """Write attempt.json with the `failure`, None for an attempt that measured.

        `failed_nodes` are the hosts that the scheduler blames.
        """
        error = str(failure) if failure else None
        record = AttemptRecord(
            started_at=self.started_at.isoformat(),
            ended_at=datetime.now(UTC).isoformat(),
            occupied_s=self.elapsed_s,
            error=error,
            cause=failure.cause if failure else None,
            evidence=failure.evidence if failure else None,
            phases=self.timer.record(),
            failed_nodes=failed_nodes or None,
            image_sha256=self.image.result(wait=error is None),
        )
        write_attempt(self.attempt, record, durable=True)
        summary = "measured" if error is None else error.splitlines()[0]
        self.print_line(f"attempt {self.attempt.name}: {summary}")


def run_attempt(
    attempt: Path,
    allocate: AllocateNodes,
    launcher: ProcessLauncher,
    print_line: PrintLine,
    processes: ManagedProcesses,
) -> int:
    """Run the trial's plan and leave attempt.json in the folder `attempt`, whatever happens.

    When this returns, every process in `processes` has ended, or is one that the next attempt may keep. Exit
    code: 0 the trial is measured, 1 its configuration is wrong, 3 the infrastructure or the harness failed,
    130 interrupted: then no attempt should follow.
    """
    running = _RunningAttempt(
        attempt, datetime.now(UTC), time.monotonic(), print_line, PhaseTimer(), ImageDigest()
    )
    limit = read_limit(attempt)
    try:
        signal.setitimer(signal.ITIMER_REAL, limit.occupied_s if limit else 0)
        failure = _failure_of_run(running, allocate, launcher, processes)
        signal.setitimer(signal.ITIMER_REAL, 0)
        code = _EXIT_CODES[failure.cause] if failure else 0
    except (KeyboardInterrupt, AllocationRevoked) as stop:
        reason = str(stop)
        if isinstance(stop, Interrupted):
            reason = launcher.interruption_reason(stop.number)
        message = f"{reason} after {running.elapsed_s:.0f} s"
        if limit and isinstance(stop, Interrupted) and stop.number == signal.SIGALRM:
            message = limit.reason
        failure, code = AttemptFailed(message, evidence=message_evidence(message)), EXIT_INTERRUPTED
        processes.shorten_deadline(_FINAL_WRITE_S)
    with defer_signals(last=processes.last or code == EXIT_INTERRUPTED):
        processes.stop_client(_FINAL_WRITE_S)
        blames_nodes = failure is not None and failure.cause == "infrastructure"
        revoked = code == EXIT_INTERRUPTED
        failed_nodes = launcher.failed_nodes(str(failure), revoked=revoked) if blames_nodes else ()
        running.record(failure, failed_nodes)  # before the rest is stopped: little time may be left
        processes.finish_attempt(measured=failure is None)
    return code


def _failure_of_run(
    running: _RunningAttempt, allocate: AllocateNodes, launcher: ProcessLauncher, processes: ManagedProcesses
) -> AttemptFailed | None:
    """Run the attempt; return how it failed, None where it measured. Raises AllocationRevoked."""
    try:
        with _revocation_explains(launcher):
            _run(running, allocate, launcher, processes)
    except AllocationRevoked:
        raise
    except TuneError as error:
        return explained(error)
    except Exception:  # a fault of ours: its trace is the error, and the study stops
        trace = traceback.format_exc()
        return AttemptFailed(trace, "harness", evidence=message_evidence(trace))
    return None


@contextmanager
def _revocation_explains(launcher: ProcessLauncher) -> Iterator[None]:
    """Raise AllocationRevoked in place of any failure that comes while the nodes are taken away."""
    try:
        yield
    except TuneError as failure:
        if reason := launcher.revoked_reason():
            raise AllocationRevoked(reason) from failure
        raise


def _run(
    running: _RunningAttempt, allocate: AllocateNodes, launcher: ProcessLauncher, processes: ManagedProcesses
) -> None:
    """Start the deployment of the plan, without the processes that still run from before, and measure."""
    plan = trial_of(running.attempt).plan
    manifest = read_manifest(plan)
    running.image.begin(manifest.image)
    nodes = allocate(manifest.nodes)
    processes.keep_reusable(manifest, plan)
    if not processes.running:
        require_checkpoint(manifest.checkpoint)
        require_free_ports(manifest, local_nodes(nodes))
    deployment = Deployment(manifest, nodes, launcher, processes.running, plan=plan, raw=running.attempt)
    _measure(deployment, running, plan)


def local_nodes(nodes: NodeAddresses) -> dict[int, str]:
    """Return index and address of the nodes on the orchestrator's host, which is that of node 0."""
    nodes_by_index = enumerate(zip(nodes.hosts, nodes.addresses, strict=True))
    return {index: address for index, (host, address) in nodes_by_index if host == nodes.hosts[0]}


def _measure(deployment: Deployment, running: _RunningAttempt, plan: Path) -> None:
    """Bring the deployment up, warm it up and run the load client, for its accuracy last."""
    endpoint_urls = [deployment.bind(url) for url in deployment.manifest.endpoint_urls]
    settings = read_client_settings(plan / "client.json", endpoint_urls)
    accuracy = _accuracy_settings(plan, endpoint_urls) if settings.load.accuracy else None
    limits, print_line = deployment.manifest.deadlines, running.print_line
    with running.timer.phase("bring_up_s"):
        with collected_evidence(deployment, running.attempt, print_line):
            require_accepted_arguments(deployment, print_line)
        bring_up(deployment, ProgressDeadline(limits.quiet_s, limits.ready_s), print_line)
    with running.timer.phase("warm_up_s"):
        warm_up(deployment, settings, print_line)
        wait_until_drained(deployment, print_line)
    probes = ProbeRunner(deployment, running.attempt, running.timer, print_line)
    search = settings.load.mode == "capacity"
    rate_qps = probes.find_capacity(settings) if search else probes.run_once(settings)
    if accuracy and rate_qps:
        probes.run_accuracy(accuracy, rate_qps)


def _accuracy_settings(plan: Path, endpoint_urls: Sequence[str]) -> ClientSettings:
    """Return the settings of the plan's accuracy run.

    Raises ConfigurationError where this host lacks what the run needs: no GPU should wait for that.
    """
    settings = read_client_settings(plan / ACCURACY_CLIENT_FILE, endpoint_urls)
    require_accuracy_needs(str(settings.tokenizer))
    return settings
