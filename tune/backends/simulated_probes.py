"""Simulate the probes of one attempt: write the records of each into its folder, and add up their times."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from tune.analysis.measure import REQUESTS_FILE
from tune.analysis.shuffles import ShuffleResult, near_a_limit, shuffle_result, write_shuffles
from tune.capacity.futility import find_futility
from tune.capacity.runner import find_capacity
from tune.loadgen.log_writer import write_logs
from tune.records.attempt_record import Phases
from tune.records.requests import RequestLog, first_requests, write_requests
from tune.sim.simulator import simulate
from tune.spec.cluster import Calibration
from tune.spec.trial import PROBE_FOLDER, TrialSpec
from tune.workload.arrivals import generated_query_duration_ns

EXTRA_SHUFFLES = 4
"""Number of further shuffles with which a probe near its limits is repeated. With the probe's own they give a
standard deviation to about 35 %, at five times the cost of one. Formula: 1 / sqrt(2 (n - 1)), n = 5."""


def simulate_probes(spec: TrialSpec, calibration: Calibration, attempt: Path) -> Phases:
    """Simulate one probe, or a capacity search, as the load of `spec` says; write one folder a probe.

    Parameters
    ----------
    spec, calibration
        The trial, and the calibration of the simulated rack.
    attempt
        Folder of the attempt.

    Returns
    -------
    Phases
        Duration of each phase in seconds, by the simulated clock.
    """
    deployment = SimulatedDeployment(calibration)
    if spec.load.mode == "capacity":
        deque(find_capacity(spec, calibration, attempt, deployment.run), maxlen=0)
        return deployment.phases
    log = simulate(spec, calibration)
    _write_probe(log, spec, calibration, attempt / PROBE_FOLDER, full=True)
    return Phases(bring_up_s=calibration.bring_up_s, probes_s=float(log.done_ns.max()) / 1e9)


class SimulatedDeployment:
    """Simulate one deployment that serves one probe after the other, each after the one before is drained."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self._probes_s = self._drain_s = 0.0

    @property
    def phases(self) -> Phases:
        """Return the duration of each phase so far, in seconds of the simulated clock."""
        spent = {"probes_s": self._probes_s, "drain_s": self._drain_s}
        return Phases(bring_up_s=self._calibration.bring_up_s, **spent)

    def run(self, spec: TrialSpec, folder: Path, *, full: bool) -> bool:
        """Simulate one probe and write its records into `folder`; return whether it was stopped as futile.

        A probe that is not `full` takes a sample of the load and is never stopped.
        """
        log = simulate(spec, self._calibration)
        futility = find_futility(log, spec.slo, len(log)) if full else None
        if futility is None:
            self._probes_s += float(log.done_ns.max()) / 1e9
            _write_probe(log, spec, self._calibration, folder, full=full)
            return False
        drained_ns = int(log.done_ns[log.scheduled_ns <= futility.after_ns].max())
        self._probes_s += futility.after_ns / 1e9
        self._drain_s += max(0, drained_ns - futility.after_ns) / 1e9
        folder.mkdir(parents=True)
        write_requests(folder / REQUESTS_FILE, first_requests(log, futility.queries))
        return True


def _write_probe(
    log: RequestLog, spec: TrialSpec, calibration: Calibration, folder: Path, *, full: bool
) -> None:
    """Write the records of a probe that ended; near a limit also the results under further shuffles.

    A trace has one order, hence no other shuffles.
    """
    folder.mkdir(parents=True)
    load = spec.load
    duration_ns = (
        int(log.scheduled_ns[-1])
        if load.trace
        else generated_query_duration_ns(len(log), load.target_qps, load.schedule_seed)
    )
    write_logs(folder, log, load, spec.slo, duration_ns)
    write_requests(folder / REQUESTS_FILE, log)
    if full and not load.trace and near_a_limit(log, spec.slo):
        write_shuffles(folder, [_shuffled(spec, calibration, 1 + index) for index in range(EXTRA_SHUFFLES)])


def _shuffled(spec: TrialSpec, calibration: Calibration, further: int) -> ShuffleResult:
    """Simulate the probe with the lengths shuffled by the `further`th seed after its own."""
    seed = spec.load.shuffle_seed + further
    load = spec.load.model_copy(update={"shuffle_seed": seed})
    return shuffle_result(simulate(spec.model_copy(update={"load": load}), calibration), seed, spec.slo)
