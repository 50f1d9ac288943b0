"""Measure what a capacity search costs and how accurate it is, by the rate to beat.

    python benchmarks/probe_costs.py [--racks 8] [--processes 2] [--rows FILE.csv]

Racks of synthetic_racks/racks.py that are in no set, CONFIGURATIONS_PER_RACK random configurations on each
but for those of a capacity below MIN_QPS. Each is searched without a rate to beat, and with its true capacity
times each of EARLY_STOP_FRACS. A row holds one search: whether it was stopped early, its cost in runs of full
length at the true capacity, drained, and the capacity that it estimates over the true one. Then, of the pool
that could do more: its true capacity over that of the deployment, up to MAX_POOL_CAPACITY_RATIO, and its
estimated capacity over the true one. benchmarks/search_synthetic_racks.py draws from these rows.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from capacity import SimulatedDeployment
from rich.progress import track
from synthetic_racks.racks import Rack, draw_rack
from synthetic_racks.space import CONFIGURATIONS, PRIOR
from synthetic_racks.true_capacities import find_capacity, holds

from tune.capacity.search import CapacityResult, search_capacity
from tune.capacity.simulator_forecast import MAX_POOL_CAPACITY_RATIO, SimulatorForecast
from tune.records.requests import RequestLog
from tune.sim.simulator import simulate_serving
from tune.spec.split import ROLES, Role
from tune.spec.trial import TrialSpec

EARLY_STOP_FRACS = (0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.4, 1.8)
FIRST_SEED, CONFIGURATIONS_PER_RACK, MIN_QPS = 9000, 2, 1.0
SHUFFLES, TOLERANCE = 9, 1.005
PATH = Path(__file__).parent / "data" / "probe_costs.csv"


@dataclass(frozen=True)
class SearchCost:
    """Hold one search; an `early_stop_frac` of 0 stands for no rate to beat."""

    rack: int
    early_stop_frac: float
    stopped_early: bool
    runs: float
    capacity_frac: float
    other_pool_ratio: float
    other_pool_frac: float


def serve(rack: Rack, spec: TrialSpec) -> RequestLog:
    """Simulate a trial on a rack."""
    return simulate_serving(rack.deployed(spec), rack.calibration(spec))


def true_capacity_qps(rack: Rack, spec: TrialSpec) -> float:
    """Return the median capacity over SHUFFLES shuffles; 0 where no rate holds."""
    capacities = [find_capacity(lambda qps: holds(rack, spec, qps), 8.0, TOLERANCE)]
    if capacities[0]:
        capacities += [
            find_capacity(
                lambda qps, shuffle=shuffle: holds(rack, spec, qps, shuffle),  # type: ignore[misc]
                capacities[0],
                TOLERANCE,
                1.015,
            )
            for shuffle in range(1, SHUFFLES)
        ]
    return float(np.median(capacities))


def true_pool_capacity_qps(rack: Rack, spec: TrialSpec, role: Role, capacity_qps: float) -> float:
    """Return the capacity of a pool, at most MAX_POOL_CAPACITY_RATIO times that of the deployment."""
    most = MAX_POOL_CAPACITY_RATIO * capacity_qps
    if holds(rack, spec, most, pool=role):
        return most
    return find_capacity(lambda qps: holds(rack, spec, qps, pool=role), capacity_qps, TOLERANCE, 1.1)


def search_each(task: tuple[int, int]) -> list[SearchCost]:
    """Search a configuration, by its index, on the rack of a seed once for each rate to beat.

    Return nothing where the capacity is below MIN_QPS.
    """
    seed, index = task
    rack, spec = draw_rack(seed), CONFIGURATIONS[index].spec
    true_qps = true_capacity_qps(rack, spec)
    if true_qps < MIN_QPS:
        return []
    full = spec.model_copy(update={"load": spec.load.model_copy(update={"target_qps": true_qps})})
    full_s = float(serve(rack, full).done_ns.max()) / 1e9
    pools = [true_pool_capacity_qps(rack, spec, role, true_qps) for role in ROLES]
    other = int(np.argmax(pools))
    costs = []
    for early_stop_frac in (0.0, *EARLY_STOP_FRACS):
        deployment, result = SimulatedDeployment(spec, partial(serve, rack)), None
        early_stop_qps = early_stop_frac * true_qps or None
        for step in search_capacity(
            spec.load, SimulatorForecast(spec, PRIOR), deployment.measure, early_stop_qps
        ):
            result = step if isinstance(step, CapacityResult) else None
        assert result, "a search ends with a result"
        estimated = (result.prefill_capacity_qps, result.decode_capacity_qps)[other] / pools[other]
        figures = (
            deployment.occupied_s / full_s,
            result.capacity_qps / true_qps,
            pools[other] / true_qps,
            estimated,
        )
        rounded = (round(figure, 4) for figure in figures)
        costs.append(SearchCost(seed, early_stop_frac, result.stopped_early, *rounded))
    return costs


def read_costs(path: Path = PATH) -> list[SearchCost]:
    """Return the searches of a file that `main` wrote."""
    with path.open(newline="") as file:
        return [
            SearchCost(int(rack), float(early_stop_frac), stopped == "True", *map(float, figures))
            for rack, early_stop_frac, stopped, *figures in list(csv.reader(file))[1:]
        ]


def table(costs: Sequence[SearchCost]) -> Iterator[str]:
    """Render Markdown, a row a rate to beat."""
    yield (
        "| rate to beat / true capacity | stopped early | runs of full length, mean | "
        "error of the capacity (median, p90) | error of the other pool (median, p90) |"
    )
    yield "|---|---|---|---|---|"
    for early_stop_frac in (0.0, *EARLY_STOP_FRACS):
        chosen = [cost for cost in costs if cost.early_stop_frac == early_stop_frac]
        cells = [
            f"{early_stop_frac or 'none'}",
            f"{np.mean([cost.stopped_early for cost in chosen]):.0%}",
            f"{np.mean([cost.runs for cost in chosen]):.2f}",
            _errors([cost.capacity_frac for cost in chosen]),
            _errors([cost.other_pool_frac for cost in chosen]),
        ]
        yield f"| {' | '.join(cells)} |"


def _errors(fractions: Sequence[float]) -> str:
    median, most = np.quantile(np.abs(np.log(np.maximum(fractions, 0.01))), [0.5, 0.9])
    return f"{median:.1%}, {most:.1%}"


def main() -> None:
    """Search on the racks that the command line names, write the rows and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--racks", type=int, default=8)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rows", type=Path, default=PATH)
    options = parser.parse_args()
    tasks = []
    for seed in range(FIRST_SEED, FIRST_SEED + options.racks):
        free = sorted(set(range(len(CONFIGURATIONS))) - draw_rack(seed).crashes())
        tasks += [
            (seed, int(index))
            for index in np.random.default_rng(seed).choice(free, CONFIGURATIONS_PER_RACK, replace=False)
        ]
    with ProcessPoolExecutor(options.processes) as pool:
        costs = [cost for each in track(pool.map(search_each, tasks), total=len(tasks)) for cost in each]
    with options.rows.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(list(SearchCost.__dataclass_fields__))
        rows.writerows(vars(cost).values() for cost in costs)
    count = len(costs) // (1 + len(EARLY_STOP_FRACS))
    print(f"{datetime.now(UTC):%Y-%m-%d}  {options.racks} racks, {count} configurations")
    print("\n".join(table(costs)))


if __name__ == "__main__":
    main()
