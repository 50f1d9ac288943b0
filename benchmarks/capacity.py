"""How near load.mode=capacity comes to the highest rate that holds the SLO, and at what cost.

    python benchmarks/capacity.py [--configurations 50] [--seeds 3] [--processes 2] [--beats [RATE ...]]

Random configurations of pd_split, each on a hidden rack of its own: the simulated one with other step times,
overheads and hypotheses than the forecast begins with. The rate that is looked for is the highest at which
LoadGen's early stopping passes in more than half of ORDERS orders of lengths, on LoadGen's schedule, by
bisection. Of each search: how far its boundary is from that rate, whether at the confirmed rate the p99 over
all those orders together holds, and its cost in runs of full length at that rate, drained. And whether it
gives the deployment up where the rate to beat is that rate times each of BEATS.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from statistics import median

import numpy as np

from tune.analysis.slo import late_requests
from tune.capacity.futility import find_futility, more_than_half
from tune.capacity.search import CapacityResult, ProbePlan, ProbeVerdict, search_capacity
from tune.capacity.simulator_forecast import SimulatorForecast
from tune.config import compose_overrides
from tune.engines.check import check
from tune.loadgen.early_stopping import late_allowed
from tune.records.requests import RequestLog, first_requests
from tune.sim.simulator import simulate
from tune.spec.bind import bind_point
from tune.spec.cluster import Calibration
from tune.spec.findings import only_errors
from tune.spec.trial import TrialSpec

SETTINGS = compose_overrides(["+sweep=pd_split"]).settings
SWEEP, CALIBRATION = SETTINGS.sweep, SETTINGS.cluster.calibration
FIRST_ORDER, ORDERS = 100, 41
TOLERANCE = 1.003
BEATS = (0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.4)


@dataclass(frozen=True)
class Found:
    label: str
    true_qps: float
    capacity_qps: float
    verified_qps: float | None
    late_frac: float
    cost: float
    probes: str
    given_up: tuple[bool, ...]

    @property
    def error(self) -> float:
        return self.capacity_qps / self.true_qps - 1

    def line(self) -> str:
        confirmed = f"{self.verified_qps:6.2f}" if self.verified_qps else "  none"
        return (
            f"{self.label:>28} {self.true_qps:6.2f} {self.capacity_qps:6.2f} {self.error:+6.1%} {confirmed} "
            f"{self.late_frac:6.2%} {self.cost:5.2f}  {self.probes}"
        )


def random_trial(draws: np.random.Generator) -> TrialSpec:
    """A configuration of the sweep that breaks no rule; its rate is that of the reference configuration."""
    space = SWEEP.space
    while True:
        point = {
            "prefill_workers": int(draws.integers(8, 17)),
            "target_qps": SETTINGS.trial_spec.load.target_qps,
        }
        for name in ("prefill_max_num_tokens", "decode_max_batch_size", "decode_cuda_graphs"):
            values = space[name].values
            point[name] = values[int(draws.integers(len(values)))]
        spec = bind_point(SETTINGS.trial_spec, SWEEP, point)
        if not only_errors(check(spec)):
            return spec


def hidden_rack(draws: np.random.Generator) -> Calibration:
    prefill, decode = np.exp(draws.normal(0, 0.12, 2))
    return CALIBRATION.model_copy(
        update={
            "prefill_scale": CALIBRATION.prefill_scale * float(prefill),
            "decode_scale": CALIBRATION.decode_scale * float(decode),
            "ttft_overhead_s": CALIBRATION.ttft_overhead_s * float(draws.uniform(0.5, 2)),
            "kv_transfer_bytes_per_s": CALIBRATION.kv_transfer_bytes_per_s * float(draws.uniform(0.5, 2)),
            "large_batch_weight_reads": float(draws.integers(2)),
            "last_decode_worker_scale": float(draws.choice([1.0, 1.0, 1.0, 1.1])),
            "head_node_scale": float(draws.choice([1.0, 1.0, 1.0, 1.08])),
        }
    )


def run(spec: TrialSpec, rack: Calibration, qps: float, order: int) -> RequestLog:
    load = spec.load.model_copy(update={"target_qps": qps, "shuffle_seed": order})
    return simulate(spec.model_copy(update={"load": load}), rack)


def most_late(log: RequestLog, spec: TrialSpec) -> int:
    return max(int(late.sum()) for late in late_requests(log, spec.slo))


def orders(spec: TrialSpec, rack: Calibration, qps: float, count: int = ORDERS) -> Iterator[RequestLog]:
    return (run(spec, rack, qps, FIRST_ORDER + order) for order in range(count))


def half_hold(spec: TrialSpec, rack: Calibration, qps: float, count: int) -> bool:
    first = run(spec, rack, qps, FIRST_ORDER)
    if most_late(first, spec) > 0.05 * len(first):
        return False
    return more_than_half(
        (most_late(log, spec) <= late_allowed(len(log)) for log in orders(spec, rack, qps, count)), count
    )


def true_boundary_qps(spec: TrialSpec, rack: Calibration, count: int = ORDERS) -> float:
    low, high = 0.5, 40.0
    while high / low > TOLERANCE:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if half_hold(spec, rack, middle, count) else (low, middle)
    return low


class Deployment:
    """`spec` on a hidden rack, which serves `asked` loads; `held_s` counts what probes take, drained."""

    def __init__(self, spec: TrialSpec, asked: Callable[[TrialSpec], RequestLog]) -> None:
        self.spec, self.asked, self.held_s = spec, asked, 0.0

    def measure(self, ask: ProbePlan) -> tuple[RequestLog, bool]:
        load = self.spec.load.model_copy(update={"target_qps": ask.target_qps})
        load = load if ask.queries is None else load.sample(ask.queries)
        log = self.asked(self.spec.model_copy(update={"load": load}))
        given_up = find_futility(log, self.spec.slo, load.expected_queries) if ask.queries is None else None
        if given_up:
            begun = log.scheduled_ns <= given_up.after_ns
            self.held_s += float(log.done_ns[begun].max()) / 1e9
            return first_requests(log, given_up.queries), False
        self.held_s += float(log.done_ns.max()) / 1e9
        return log, most_late(log, self.spec) <= late_allowed(len(log))


def searches(task: tuple[TrialSpec, Calibration, int, Sequence[float]]) -> list[Found]:
    """Searches on one configuration, one an order of lengths."""
    spec, rack, seeds, beats = task
    true_qps = true_boundary_qps(spec, rack)
    return [search(spec, rack, seed, true_qps, beats) for seed in range(seeds)]


def search(spec: TrialSpec, rack: Calibration, seed: int, true_qps: float, beats: Sequence[float]) -> Found:
    spec = spec.model_copy(update={"load": spec.load.model_copy(update={"shuffle_seed": seed})})
    deployment, told, answer = Deployment(spec, partial(simulate, calibration=rack)), [], None
    for step in search_capacity(spec.load, SimulatorForecast(spec, CALIBRATION), deployment.measure):
        if isinstance(step, ProbeVerdict):
            verdict = "held" if step.slo_held else "missed"
            told.append(f"{step.plan.target_qps:.2f} {verdict if step.plan.queries is None else 'short'}")
        else:
            answer = step
    assert isinstance(answer, CapacityResult)
    late_frac, cost = float("nan"), float("nan")
    if answer.verified_qps:
        logs = list(orders(spec, rack, answer.verified_qps))
        late = sum(np.array([one.sum() for one in late_requests(log, spec.slo)]) for log in logs)
        late_frac = float(np.max(late)) / sum(map(len, logs))
        cost = deployment.held_s / (float(run(spec, rack, answer.verified_qps, seed).done_ns.max()) / 1e9)
    given_up = tuple(gives_up(spec, rack, true_qps * beat) for beat in beats)
    label = f"{spec.split.label} {spec.prefill.max_num_tokens} {spec.decode.max_batch_size}"
    found = (label, true_qps, answer.capacity_qps, answer.verified_qps, late_frac, cost, ", ".join(told))
    return Found(*found, given_up)


def gives_up(spec: TrialSpec, rack: Calibration, early_stop_qps: float) -> bool:
    """Whether the search ends before its first run of full length, since `early_stop_qps` is out of reach."""
    deployment = Deployment(spec, partial(simulate, calibration=rack))
    for step in search_capacity(
        spec.load, SimulatorForecast(spec, CALIBRATION), deployment.measure, early_stop_qps
    ):
        if isinstance(step, CapacityResult) or step.plan.queries is None:
            return isinstance(step, CapacityResult) and step.censored
    raise AssertionError("a search ends with an answer")


def summary(found: Sequence[Found], beats: Sequence[float]) -> str:
    near = np.mean([abs(one.error) <= 0.02 for one in found])
    held = np.mean([one.verified_qps is not None and one.late_frac <= 0.01 for one in found])
    costs = [one.cost for one in found if one.verified_qps]
    below = [1 - one.verified_qps / one.true_qps for one in found if one.verified_qps]
    return (
        f"{len(found)} searches: boundary within 2 % in {near:.1%}; true SLO held at the confirmed rate in "
        f"{held:.1%}; cost median {median(costs):.2f}, mean {np.mean(costs):.2f} runs of full length; the "
        f"confirmed rate is {median(below):.1%} below the true boundary (median)\n"
        f"{summary_of_given_up(found, beats)}"
    )


def summary_of_given_up(found: Sequence[Found], beats: Sequence[float]) -> str:
    shares = np.mean([one.given_up for one in found], axis=0)
    told = (f"{beat:g} times its boundary {share:.0%}" for beat, share in zip(beats, shares, strict=True))
    return f"given up where the rate to beat is {', '.join(told)}" if beats else ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configurations", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3, help="orders of lengths that each is searched with")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--draw", type=int, default=0, help="seed of configurations and hidden racks")
    parser.add_argument(
        "--beats",
        type=float,
        nargs="*",
        default=BEATS,
        help="rates to beat, in true boundaries; two thirds of the time",
    )
    options = parser.parse_args()
    draws = np.random.default_rng(options.draw)
    counts = (options.seeds, options.beats)
    tasks = [(random_trial(draws), hidden_rack(draws), *counts) for _ in range(options.configurations)]
    print(f"{datetime.now(UTC):%Y-%m-%d}  prefill workers, chunk, decode batch; rates in queries/s")
    print(f"{'':>28} {'true':>6} {'found':>6} {'off':>6} {'conf.':>6} {'late':>6} {'cost':>5}  probes")
    found: list[Found] = []
    with ProcessPoolExecutor(options.processes) as pool:
        for some in pool.map(searches, tasks):
            found += some
            print("\n".join(one.line() for one in some), flush=True)
    print(summary(found, options.beats))


if __name__ == "__main__":
    main()
