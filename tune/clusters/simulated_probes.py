"""The probes of one attempt on the simulated rack: what each leaves in its folder, and how long it took."""

from __future__ import annotations

from pathlib import Path

from tune.probe.arrivals import generated_query_duration_ns
from tune.probe.capacity import Answer, Ask, explore
from tune.probe.sequential import hopeless
from tune.results.asked import Asked, Capacity, write_asked, write_capacity
from tune.results.loadgen_log import write_logs
from tune.results.measure import REQUESTS_FILE, measure
from tune.results.orders import Order, near_a_limit, order_of, write_orders
from tune.results.requests import RequestLog, write_requests
from tune.results.select import first_requests
from tune.sim.forecast import RackForecast
from tune.sim.rack import simulate
from tune.spec.cluster import Calibration
from tune.spec.load import Load
from tune.spec.trial import PROBE_FOLDER, TrialSpec, probe_folder

FURTHER_ORDERS = 4
"""Orders of lengths that a probe near its limits is repeated with, beside its own: enough for a standard
deviation to about 35 %, at five times the cost of one. Formula: 1 / sqrt(2 (n - 1)), n = 5."""


def simulate_probes(spec: TrialSpec, calibration: Calibration, attempt: Path) -> float:
    """Ask what the load of `spec` says, and leave a folder a probe; seconds that the probes took, drained."""
    if spec.load.mode == "capacity":
        return _find_highest_rate(spec, calibration, attempt)
    log = simulate(spec, calibration)
    _leave(log, spec, calibration, attempt / PROBE_FOLDER, full=True)
    return float(log.done_ns.max()) / 1e9


def _find_highest_rate(spec: TrialSpec, calibration: Calibration, attempt: Path) -> float:
    deployment = Deployment(spec, calibration, attempt)
    forecast = RackForecast(spec, calibration)
    *_, answer = explore(spec.load, forecast, deployment.measure)
    assert isinstance(answer, Answer)
    record = Capacity(
        confirmed_qps=answer.confirmed_qps,
        missed_qps=answer.missed_qps,
        boundary_qps=answer.boundary_qps,
        fitted=forecast.fitted,
    )
    write_capacity(attempt, record)
    return deployment.held_s


class Deployment:
    """One deployment, asked probe after probe; each begins when the one before is drained."""

    def __init__(self, spec: TrialSpec, calibration: Calibration, attempt: Path) -> None:
        self.held_s = 0.0
        self._spec, self._calibration, self._attempt = spec, calibration, attempt
        self._probes = 0

    def measure(self, ask: Ask) -> tuple[RequestLog, bool | None]:
        """The record of the probe, and whether it held; a run that cannot is stopped when that is certain."""
        load = self._spec.load.at(ask.target_qps)
        spec = self._with(load if ask.queries is None else load.first(ask.queries))
        log = simulate(spec, self._calibration)
        certain = hopeless(log, spec.slo, len(log)) if ask.queries is None else None
        begun = slice(None) if certain is None else log.scheduled_ns <= certain.after_ns
        self.held_s += float(log.done_ns[begun].max()) / 1e9
        self._probes += 1
        folder = self._attempt / probe_folder(self._probes)
        if certain is None:
            _leave(log, spec, self._calibration, folder, full=ask.queries is None)
        else:
            log = first_requests(log, certain.queries)
            folder.mkdir(parents=True)
            write_requests(folder / REQUESTS_FILE, log)
        asked = Asked(target_qps=ask.target_qps, queries=ask.queries, stopped=certain is not None)
        write_asked(folder, asked)
        probe = measure(folder, spec, folder.name)
        return log, probe.feasible if probe.valid else None

    def _with(self, load: Load) -> TrialSpec:
        return self._spec.model_copy(update={"load": load})


def _leave(log: RequestLog, spec: TrialSpec, calibration: Calibration, folder: Path, *, full: bool) -> None:
    """What a probe that came to its end leaves; near a limit, with what other orders of lengths come to."""
    folder.mkdir(parents=True)
    load = spec.load
    duration_ns = generated_query_duration_ns(len(log), load.target_qps, load.schedule_seed)
    write_logs(folder, log, load, spec.slo, duration_ns)
    write_requests(folder / REQUESTS_FILE, log)
    if full and near_a_limit(order_of(log, load.length_seed, spec.slo), spec.slo):
        write_orders(folder, [_order(spec, calibration, 1 + index) for index in range(FURTHER_ORDERS)])


def _order(spec: TrialSpec, calibration: Calibration, further: int) -> Order:
    """The probe once more, with the lengths in the order of the `further`th seed after its own."""
    seed = spec.load.length_seed + further
    load = spec.load.model_copy(update={"length_seed": seed})
    return order_of(simulate(spec.model_copy(update={"load": load}), calibration), seed, spec.slo)
