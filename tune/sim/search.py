"""The search for the highest rate on one deployment, wherever that is, with the record it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Protocol

from tune.probe.capacity import Answer, Ask, Seen, explore
from tune.results.asked import Asked, Capacity, read_goal, write_asked, write_capacity
from tune.results.measure import REQUESTS_FILE, measure
from tune.results.requests import RequestLog, read_requests
from tune.sim.forecast import RackForecast
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec, probe_folder


class Run(Protocol):
    """One LoadGen run on the deployment."""

    def __call__(self, spec: TrialSpec, folder: Path, *, full: bool) -> bool:
        """Leave the record of the load of `spec` in `folder`, a new one, with the deployment drained.

        True where the run was stopped: one that is `full` is, when it can no longer hold its SLO; its record
        ends where that was certain.
        """


def find_highest_rate(
    spec: TrialSpec, calibration: Calibration, attempt: Path, run: Run
) -> Iterator[Seen | Answer]:
    """Probe one deployment of `spec` by `run` until the answer is known, and leave it in `attempt`.

    `calibration` is what the forecast begins with; a rate to beat lies in `attempt`. Yields what
    tune.probe.capacity.explore does; each probe has left its folder then, the answer its capacity.json.
    Raises what `run` and tune.results.measure do.
    """
    forecast, numbers, goal = RackForecast(spec, calibration), count(1), read_goal(attempt)
    beat_qps = goal.beat_qps if goal else None

    def measure_next(ask: Ask) -> tuple[RequestLog, bool | None]:
        return measure_ask(ask, spec, attempt / probe_folder(next(numbers)), run)

    for step in explore(spec.load, forecast, measure_next, beat_qps):
        if isinstance(step, Answer):
            record = Capacity(
                confirmed_qps=step.confirmed_qps,
                missed_qps=step.missed_qps,
                boundary_qps=step.boundary_qps,
                prefill_qps=step.prefill_qps,
                decode_qps=step.decode_qps,
                fitted=forecast.fitted,
                censored=step.censored,
            )
            write_capacity(attempt, record)
        yield step


def measure_ask(ask: Ask, spec: TrialSpec, folder: Path, run: Run) -> tuple[RequestLog, bool | None]:
    """The record of one probe of a deployment of `spec`, and whether it held; None for one not to trust."""
    load = spec.load.at(ask.target_qps)
    asked = spec.model_copy(update={"load": load if ask.queries is None else load.sample(ask.queries)})
    stopped = run(asked, folder, full=ask.queries is None)
    write_asked(folder, Asked(target_qps=ask.target_qps, queries=ask.queries, stopped=stopped))
    probe = measure(folder, asked, folder.name)
    return read_requests(folder / REQUESTS_FILE), probe.feasible if probe.valid else None
