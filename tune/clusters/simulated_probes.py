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


def simulate_probes(spec: TrialSpec, calibration: Calibration, attempt: Path) -> Phases:
    """Ask what the load of `spec` says, and leave a folder a probe; how long it took, by the rack's clock."""
    deployment = Deployment(calibration)
    if spec.load.mode == "capacity":
        deque(find_highest_rate(spec, calibration, attempt, deployment.run), maxlen=0)
    else:
        deployment.run_to_the_end(spec, attempt / PROBE_FOLDER, full=True)
    return deployment.phases


class Deployment:
    """One deployment, asked probe after probe; each begins when the one before is drained."""

    def __init__(self, calibration: Calibration) -> None:
        self.phases = Phases(bring_up_s=calibration.bring_up_s)
        self._calibration = calibration

    def run(self, spec: TrialSpec, folder: Path, *, full: bool) -> bool:
        """As tune.sim.search.Run says."""
        if not full:
            self.run_to_the_end(spec, folder, full=False)
            return False
        log = simulate(spec, self._calibration)
        certain = hopeless(log, spec.slo, len(log))
        if certain is None:
            self._leave(log, spec, folder, full=True)
            return False
        begun = log.scheduled_ns <= certain.after_ns
        self._count(certain.after_ns, int(log.done_ns[begun].max()))
        folder.mkdir(parents=True)
        write_requests(folder / REQUESTS_FILE, first_requests(log, certain.queries))
        return True

    def run_to_the_end(self, spec: TrialSpec, folder: Path, *, full: bool) -> None:
        """Likewise, without stopping it."""
        self._leave(simulate(spec, self._calibration), spec, folder, full=full)

    def _leave(self, log: RequestLog, spec: TrialSpec, folder: Path, *, full: bool) -> None:
        last_ns = int(log.done_ns.max())
        self._count(last_ns, last_ns)
        _leave(log, spec, self._calibration, folder, full=full)

    def _count(self, over_ns: int, drained_ns: int) -> None:
        phases = self.phases
        spent = {
            "probes_s": phases.probes_s + over_ns / 1e9,
            "drain_s": phases.drain_s + max(0, drained_ns - over_ns) / 1e9,
        }
        self.phases = phases.model_copy(update=spent)


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
