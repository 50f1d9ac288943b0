"""Simulate the probes of one attempt: write the records of each into its folder, and add up their times."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from tune.analysis.measure import REQUESTS_FILE
from tune.analysis.shuffles import ShuffleResult, near_a_limit, shuffle_result, write_shuffles
from tune.backends.activity import VERDICTS, Activity
from tune.capacity.futility import find_futility
from tune.capacity.runner import find_capacity
from tune.capacity.search import ProbeVerdict
from tune.core.files import make_folder
from tune.core.threads import map_ahead
from tune.loadgen.log_writer import write_logs
from tune.records.attempt_record import Phases
from tune.records.requests import RequestLog, first_requests, write_requests
from tune.sim.simulator import simulate_serving
from tune.spec.cluster import Calibration
from tune.spec.trial import PROBE_FOLDER, TrialSpec
from tune.workload.arrivals import generated_query_duration_ns

EXTRA_SHUFFLES = 4
"""Number of further shuffles with which a probe near its limits is repeated. With the probe's own they give a
standard deviation to about 35 %, at five times the cost of one. Formula: 1 / sqrt(2 (n - 1)), n = 5."""


Report = Callable[[Activity], None]
"""Receive each step of an attempt as it begins or ends."""


def simulate_probes(
    spec: TrialSpec, calibration: Calibration, attempt: Path, report: Report, *, threads: int
) -> Phases:
    """Simulate one probe, or a capacity search, as the load of `spec` says; write one folder a probe.

    Parameters
    ----------
    spec, calibration
        The trial, and the calibration of the simulated rack.
    attempt
        Folder of the attempt.
    report
        Receives each step.
    threads
        Number of threads that simulate.

    Returns
    -------
    Phases
        Duration of each phase in seconds, by the simulated clock.
    """
    if spec.load.mode == "capacity":
        deployment = SimulatedDeployment(calibration, report, threads)
        report(Activity("forecast", 1))
        steps = find_capacity(spec, calibration, attempt, deployment.run, threads=threads)
        for number, step in enumerate(steps, 1):
            if isinstance(step, ProbeVerdict):
                report(_ended_probe(number, step))
                report(Activity("forecast", number + 1))
        return deployment.phases
    load = spec.load
    report(Activity("probe", 1, target_qps=load.target_qps or 0.0, concurrency=load.concurrency, full=True))
    log = simulate_serving(spec, calibration)
    _write_probe(log, spec, attempt / PROBE_FOLDER)
    if near_a_limit(log, spec.slo):
        write_shuffles(attempt / PROBE_FOLDER, _further_shuffles(spec, calibration, report, threads))
    return Phases(bring_up_s=calibration.bring_up_s, probes_s=float(log.done_ns.max()) / 1e9)


def _ended_probe(number: int, verdict: ProbeVerdict) -> Activity:
    """Return the step of a probe that ended with `verdict`."""
    plan = verdict.plan
    return Activity(
        "probe",
        number,
        target_qps=plan.target_qps,
        full=plan.queries is None,
        verdict=VERDICTS[verdict.slo_met],
    )


class SimulatedDeployment:
    """Simulate one deployment that serves one probe after the other, each after the one before is drained."""

    def __init__(self, calibration: Calibration, report: Report, threads: int = 1) -> None:
        self._calibration, self._report, self._threads = calibration, report, threads
        self._probes_s = self._drain_s = 0.0
        self._probes = 0

    @property
    def phases(self) -> Phases:
        """Return the duration of each phase so far, in seconds of the simulated clock."""
        spent = {"probes_s": self._probes_s, "drain_s": self._drain_s}
        return Phases(bring_up_s=self._calibration.bring_up_s, **spent)

    def run(self, spec: TrialSpec, folder: Path, *, full: bool) -> bool:
        """Simulate one probe and write its records into `folder`; return whether it was stopped as futile.

        A probe that is not `full` takes a sample of the load and is never stopped.
        """
        self._probes += 1
        self._report(Activity("probe", self._probes, target_qps=spec.load.offered_qps, full=full))
        log = simulate_serving(spec, self._calibration)
        futility = find_futility(log, spec.slo, len(log)) if full else None
        if futility is None:
            self._probes_s += float(log.done_ns.max()) / 1e9
            _write_probe(log, spec, folder)
            if full and near_a_limit(log, spec.slo):
                results = _further_shuffles(spec, self._calibration, self._report, self._threads)
                write_shuffles(folder, results)
            return False
        drained_ns = int(log.done_ns[log.scheduled_ns <= futility.after_ns].max())
        self._probes_s += futility.after_ns / 1e9
        self._drain_s += max(0, drained_ns - futility.after_ns) / 1e9
        make_folder(folder)
        write_requests(folder / REQUESTS_FILE, first_requests(log, futility.queries))
        return True


def _write_probe(log: RequestLog, spec: TrialSpec, folder: Path) -> None:
    """Write the records of a probe that ended; a closed loop has none of LoadGen."""
    make_folder(folder)
    load = spec.load
    if not load.is_closed_loop:
        duration_ns = (
            int(log.scheduled_ns[-1])
            if load.trace
            else generated_query_duration_ns(len(log), load.offered_qps, load.schedule_seed)
        )
        write_logs(folder, log, load, spec.slo, duration_ns)
    write_requests(folder / REQUESTS_FILE, log)


def _further_shuffles(
    spec: TrialSpec, calibration: Calibration, report: Report, threads: int
) -> list[ShuffleResult]:
    """Simulate the full run with its lengths in EXTRA_SHUFFLES further shuffles."""
    seeds = range(spec.load.shuffle_seed + 1, spec.load.shuffle_seed + 1 + EXTRA_SHUFFLES)
    results = map_ahead(partial(_shuffled, spec, calibration), seeds, threads)
    shuffles = []
    for number in range(1, 1 + EXTRA_SHUFFLES):
        report(Activity("shuffle", number, EXTRA_SHUFFLES))
        shuffles.append(next(results))
    return shuffles


def _shuffled(spec: TrialSpec, calibration: Calibration, seed: int) -> ShuffleResult:
    """Simulate the full run with its lengths in the shuffle of `seed`."""
    load = spec.load.model_copy(update={"shuffle_seed": seed})
    return shuffle_result(
        simulate_serving(spec.model_copy(update={"load": load}), calibration), seed, spec.slo
    )
