"""Measure how accurate load.mode=capacity is, and what a search costs.

    python benchmarks/capacity.py [--configurations 50] [--seeds 3] [--processes 2] [--beats [RATE ...]]

Random configurations of pd_split are searched, each on a rack with hidden parameters: the simulated rack with
other step times, overheads and hypotheses than the forecast begins with. The true capacity is the highest
rate at which LoadGen's early stopping passes in more than half of SHUFFLES shuffles, on LoadGen's schedule,
by bisection. A line holds one search: the error of its capacity, whether the p99 over all those shuffles
holds at the verified rate, and its cost in runs of full length at that rate, drained. The summary also tells
how often a search stops early where the rate to beat is the true capacity times each of BEATS.
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
from tune.sim.simulator import simulate_serving
from tune.spec.bind import bind_point
from tune.spec.cluster import Calibration
from tune.spec.findings import only_errors
from tune.spec.trial import TrialSpec

SETTINGS = compose_overrides(["+sweep=pd_split"]).settings
SWEEP, CALIBRATION = SETTINGS.sweep, SETTINGS.cluster.calibration
FIRST_SHUFFLE, SHUFFLES = 100, 41
TOLERANCE = 1.003
BEATS = (0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.4)


@dataclass(frozen=True)
class SearchResult:
    """Hold one search; `stopped_early` is by rate to beat."""

    label: str
    true_qps: float
    capacity_qps: float
    verified_qps: float | None
    late_frac: float
    cost: float
    probes: str
    stopped_early: tuple[bool, ...]

    @property
    def error(self) -> float:
        """Return the relative error of the capacity."""
        return self.capacity_qps / self.true_qps - 1

    def line(self) -> str:
        """Render the search as a line of the table."""
        verified = f"{self.verified_qps:6.2f}" if self.verified_qps else "  none"
        return (
            f"{self.label:>28} {self.true_qps:6.2f} {self.capacity_qps:6.2f} {self.error:+6.1%} {verified} "
            f"{self.late_frac:6.2%} {self.cost:5.2f}  {self.probes}"
        )


def random_trial(draws: np.random.Generator) -> TrialSpec:
    """Draw a configuration of the sweep that breaks no rule, at the rate of the reference configuration."""
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


def random_rack(draws: np.random.Generator) -> Calibration:
    """Draw the parameters of a rack."""
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


def run(spec: TrialSpec, rack: Calibration, qps: float, shuffle: int) -> RequestLog:
    """Simulate a run of full length."""
    load = spec.load.model_copy(update={"target_qps": qps, "shuffle_seed": shuffle})
    return simulate_serving(spec.model_copy(update={"load": load}), rack)


def max_late(log: RequestLog, spec: TrialSpec) -> int:
    """Return the number of late requests under the limit that most requests miss."""
    return max(int(late.sum()) for late in late_requests(log, spec.slo))


def shuffles(spec: TrialSpec, rack: Calibration, qps: float, count: int = SHUFFLES) -> Iterator[RequestLog]:
    """Simulate a rate under `count` shuffles."""
    return (run(spec, rack, qps, FIRST_SHUFFLE + shuffle) for shuffle in range(count))


def half_hold(spec: TrialSpec, rack: Calibration, qps: float, count: int) -> bool:
    """Return whether a rate holds under more than half of `count` shuffles."""
    first = run(spec, rack, qps, FIRST_SHUFFLE)
    if max_late(first, spec) > 0.05 * len(first):
        return False
    return more_than_half(
        (max_late(log, spec) <= late_allowed(len(log)) for log in shuffles(spec, rack, qps, count)), count
    )


def true_capacity_qps(spec: TrialSpec, rack: Calibration, count: int = SHUFFLES) -> float:
    """Return the highest rate that holds under more than half of `count` shuffles."""
    low, high = 0.5, 40.0
    while high / low > TOLERANCE:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if half_hold(spec, rack, middle, count) else (low, middle)
    return low


class SimulatedDeployment:
    """Serve the probes of a search by `serve` and add up in `occupied_s` what they take, drained."""

    def __init__(self, spec: TrialSpec, serve: Callable[[TrialSpec], RequestLog]) -> None:
        self.spec, self.serve, self.occupied_s = spec, serve, 0.0

    def measure(self, plan: ProbePlan) -> tuple[RequestLog, bool]:
        """Run a probe; return its requests and whether it held."""
        load = self.spec.load.model_copy(update={"target_qps": plan.target_qps})
        load = load if plan.queries is None else load.sample(plan.queries)
        log = self.serve(self.spec.model_copy(update={"load": load}))
        futility = find_futility(log, self.spec.slo, load.expected_queries) if plan.queries is None else None
        if futility:
            begun = log.scheduled_ns <= futility.after_ns
            self.occupied_s += float(log.done_ns[begun].max()) / 1e9
            return first_requests(log, futility.queries), False
        self.occupied_s += float(log.done_ns.max()) / 1e9
        return log, max_late(log, self.spec) <= late_allowed(len(log))


def search_each(task: tuple[TrialSpec, Calibration, int, Sequence[float]]) -> list[SearchResult]:
    """Search one configuration once for each shuffle."""
    spec, rack, seeds, beats = task
    true_qps = true_capacity_qps(spec, rack)
    return [search(spec, rack, seed, true_qps, beats) for seed in range(seeds)]


def search(
    spec: TrialSpec, rack: Calibration, seed: int, true_qps: float, beats: Sequence[float]
) -> SearchResult:
    """Search one configuration with one shuffle, and once more for each rate to beat."""
    spec = spec.model_copy(update={"load": spec.load.model_copy(update={"shuffle_seed": seed})})
    deployment = SimulatedDeployment(spec, partial(simulate_serving, calibration=rack))
    probes, result = [], None
    for step in search_capacity(spec.load, SimulatorForecast(spec, CALIBRATION), deployment.measure):
        if isinstance(step, ProbeVerdict):
            verdict = "held" if step.slo_met else "missed"
            probes.append(f"{step.plan.target_qps:.2f} {verdict if step.plan.queries is None else 'short'}")
        else:
            result = step
    assert isinstance(result, CapacityResult)
    late_frac, cost = float("nan"), float("nan")
    if result.verified_qps:
        logs = list(shuffles(spec, rack, result.verified_qps))
        late = sum(np.array([each.sum() for each in late_requests(log, spec.slo)]) for log in logs)
        late_frac = float(np.max(late)) / sum(map(len, logs))
        cost = deployment.occupied_s / (float(run(spec, rack, result.verified_qps, seed).done_ns.max()) / 1e9)
    stopped_early = tuple(stops_early(spec, rack, true_qps * beat) for beat in beats)
    label = f"{spec.split.label} {spec.prefill.max_num_tokens} {spec.decode.max_batch_size}"
    rates = true_qps, result.capacity_qps, result.verified_qps
    return SearchResult(label, *rates, late_frac, cost, ", ".join(probes), stopped_early)


def stops_early(spec: TrialSpec, rack: Calibration, early_stop_qps: float) -> bool:
    """Return whether the search ends before its first full run, since `early_stop_qps` is out of reach."""
    deployment = SimulatedDeployment(spec, partial(simulate_serving, calibration=rack))
    for step in search_capacity(
        spec.load, SimulatorForecast(spec, CALIBRATION), deployment.measure, early_stop_qps
    ):
        if isinstance(step, CapacityResult) or step.plan.queries is None:
            return isinstance(step, CapacityResult) and step.stopped_early
    raise AssertionError("a search ends with a result")


def summary(results: Sequence[SearchResult], beats: Sequence[float]) -> str:
    """Summarise all searches in a few lines."""
    near = np.mean([abs(each.error) <= 0.02 for each in results])
    held = np.mean([each.verified_qps is not None and each.late_frac <= 0.01 for each in results])
    costs = [each.cost for each in results if each.verified_qps]
    below = [1 - each.verified_qps / each.true_qps for each in results if each.verified_qps]
    return (
        f"{len(results)} searches: capacity within 2 % in {near:.1%}; true SLO held at the verified rate in "
        f"{held:.1%}; cost median {median(costs):.2f}, mean {np.mean(costs):.2f} runs of full length; the "
        f"verified rate is {median(below):.1%} below the true capacity (median)\n"
        f"{summary_of_early_stops(results, beats)}"
    )


def summary_of_early_stops(results: Sequence[SearchResult], beats: Sequence[float]) -> str:
    """Render how often searches stop early, by the rate to beat."""
    fractions = np.mean([each.stopped_early for each in results], axis=0)
    cells = (f"{beat:g} times its capacity {frac:.0%}" for beat, frac in zip(beats, fractions, strict=True))
    return f"stopped early where the rate to beat is {', '.join(cells)}" if beats else ""


def main() -> None:
    """Search the configurations that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configurations", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3, help="shuffles that each is searched with")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--draw", type=int, default=0, help="seed of configurations and racks")
    parser.add_argument(
        "--beats",
        type=float,
        nargs="*",
        default=BEATS,
        help="rates to beat, in true capacities; two thirds of the time",
    )
    options = parser.parse_args()
    draws = np.random.default_rng(options.draw)
    counts = (options.seeds, options.beats)
    tasks = [(random_trial(draws), random_rack(draws), *counts) for _ in range(options.configurations)]
    print(f"{datetime.now(UTC):%Y-%m-%d}  prefill workers, chunk, decode batch; rates in queries/s")
    print(f"{'':>28} {'true':>6} {'found':>6} {'error':>6} {'verif.':>6} {'late':>6} {'cost':>5}  probes")
    results: list[SearchResult] = []
    with ProcessPoolExecutor(options.processes) as pool:
        for searched in pool.map(search_each, tasks):
            results += searched
            print("\n".join(each.line() for each in searched), flush=True)
    print(summary(results, options.beats))


if __name__ == "__main__":
    main()
