"""The search for the highest rate on one deployment, wherever that is, with the record it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Protocol

from tune.analysis.measure import REQUESTS_FILE, measure
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
    """One LoadGen run on the deployment."""

    def __call__(self, spec: TrialSpec, folder: Path, *, full: bool) -> bool:
        """Leave the record of the load of `spec` in `folder`, a new one, with the deployment drained.

        True where the run was stopped: one that is `full` is, when it can no longer hold its SLO; its record
        ends where that was certain.
        """


def find_capacity(
    spec: TrialSpec, calibration: Calibration, attempt: Path, run: RunProbe
) -> Iterator[ProbeVerdict | CapacityResult]:
    """Probe one deployment of `spec` by `run` until the answer is known, and leave it in `attempt`.

    `calibration` is what the forecast begins with; a rate to beat lies in `attempt`. Yields what
    tune.capacity.search.explore does; each probe has left its folder then, the answer its capacity.json.
    Raises what `run` and tune.analysis.measure do.
    """
    forecast, numbers, goal = SimulatorForecast(spec, calibration), count(1), read_early_stop(attempt)
    early_stop_qps = goal.early_stop_qps if goal else None

    def measure_next(ask: ProbePlan) -> tuple[RequestLog, bool | None]:
        return measure_probe(ask, spec, attempt / probe_folder(next(numbers)), run)

    for step in search_capacity(spec.load, forecast, measure_next, early_stop_qps):
        if isinstance(step, CapacityResult):
            record = CapacityRecord(
                verified_qps=step.verified_qps,
                missed_qps=step.missed_qps,
                capacity_qps=step.capacity_qps,
                prefill_capacity_qps=step.prefill_capacity_qps,
                decode_capacity_qps=step.decode_capacity_qps,
                fitted=forecast.fitted,
                censored=step.censored,
            )
            write_capacity(attempt, record)
        yield step


def measure_probe(
    ask: ProbePlan, spec: TrialSpec, folder: Path, run: RunProbe
) -> tuple[RequestLog, bool | None]:
    """The record of one probe of a deployment of `spec`, and whether it held; None for one not to trust."""
    load = spec.load.at(ask.target_qps)
    asked = spec.model_copy(update={"load": load if ask.queries is None else load.sample(ask.queries)})
    stopped = run(asked, folder, full=ask.queries is None)
    write_probe_request(folder, ProbeRequest(target_qps=ask.target_qps, queries=ask.queries, stopped=stopped))
    probe = measure(folder, asked, folder.name)
    return read_requests(folder / REQUESTS_FILE), probe.feasible if probe.valid else None
