"""Run the capacity search on one deployment of any backend, and leave its record."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Protocol

from tune.analysis.measure import REQUESTS_FILE, measure
from tune.capacity.bisection import bisect_capacity
from tune.capacity.search import CapacityResult, ProbePlan, ProbeVerdict, search_capacity
from tune.capacity.simulator_forecast import SimulatorForecast
from tune.records.capacity_search import (
    CapacityRecord,
    ProbeRequest,
    read_early_stop,
    write_capacity,
    write_probe_request,
)
from tune.records.requests import RequestLog, read_requests
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec, probe_folder


class RunProbe(Protocol):
    """Run LoadGen once on the deployment."""

    def __call__(self, spec: TrialSpec, folder: Path, *, full: bool) -> bool:
        """Leave the record of the load of `spec` in the new `folder`, with the deployment drained.

        Returns True if the run was stopped. A `full` run is stopped when it can no longer hold its SLO, and
        its record ends where that was certain.
        """


def find_capacity(
    spec: TrialSpec, calibration: Calibration | None, attempt: Path, run: RunProbe, *, threads: int
) -> Iterator[ProbeVerdict | CapacityResult]:
    """Search for the capacity of one deployment of `spec`.

    Parameters
    ----------
    spec
        Trial whose load is searched.
    calibration
        Calibration that the forecast begins with; None where nothing can forecast `spec`, so that the rate is
        found by bisection.
    attempt
        Folder of the attempt; it may hold an early-stop threshold. Probe folders and capacity.json go here.
    run
        Runs one probe.
    threads
        Number of threads that forecast the next rate between two probes.

    Yields
    ------
    ProbeVerdict | CapacityResult
        Each probe once its folder is complete, and the result last, once capacity.json is written.

    Raises
    ------
    TuneError
        As `run` and tune.analysis.measure raise it.
    """
    forecast = None if calibration is None else SimulatorForecast(spec, calibration, threads)
    numbers = count(1)
    early_stop = read_early_stop(attempt)
    early_stop_qps = early_stop.early_stop_qps if early_stop else None

    def measure_next(plan: ProbePlan) -> tuple[RequestLog, bool | None]:
        """Measure the next probe."""
        return measure_probe(plan, spec, attempt / probe_folder(next(numbers)), run)

    steps = (
        search_capacity(spec.load, forecast, measure_next, early_stop_qps)
        if forecast
        else bisect_capacity(spec.load, measure_next, early_stop_qps)
    )
    for step in steps:
        if isinstance(step, CapacityResult):
            record = CapacityRecord(
                verified_qps=step.verified_qps,
                missed_qps=step.missed_qps,
                capacity_qps=step.capacity_qps,
                prefill_capacity_qps=step.prefill_capacity_qps,
                decode_capacity_qps=step.decode_capacity_qps,
                fitted=forecast.fitted if forecast else {},
                stopped_early=step.stopped_early,
                forecast=forecast.curve() if forecast else (),
            )
            write_capacity(attempt, record)
        yield step


def measure_probe(
    plan: ProbePlan, spec: TrialSpec, folder: Path, run: RunProbe
) -> tuple[RequestLog, bool | None]:
    """Run one probe of a deployment of `spec`; return its requests and whether the SLO held.

    The verdict is None for an invalid measurement.
    """
    load = spec.load.at(plan.target_qps)
    probe_load = load if plan.queries is None else load.sample(plan.queries)
    probe_spec = spec.model_copy(update={"load": probe_load})
    stopped = run(probe_spec, folder, full=plan.queries is None)
    request = ProbeRequest(target_qps=plan.target_qps, queries=plan.queries, stopped=stopped)
    write_probe_request(folder, request)
    probe = measure(folder, probe_spec, folder.name)
    return read_requests(folder / REQUESTS_FILE), probe.feasible if probe.valid else None
