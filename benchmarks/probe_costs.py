"""What the search for the highest rate spends on a deployment and tells, by the rate that there is to beat.

    python benchmarks/probe_costs.py [--racks 8] [--processes 2] [--rows FILE.csv]

Racks of hidden/racks.py that no set of benchmarks/hidden_racks.py has, OF_RACK random configurations on each,
but for those that hold less than LEAST_QPS. Each is searched without a rate to beat, and with its boundary
times each of BEATS. A row a search: whether it was given up, what it cost in runs of full length at its true
boundary, drained, and the boundary that it states over the true one. Then of the pool that could do more,
were the other no limit: how many times the boundary, up to MAX_POOL_CAPACITY_RATIO, and what was stated of it over what is
true. benchmarks/hidden_racks.py draws from these rows.
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
from capacity import Deployment
from hidden.racks import Rack, draw_rack
from hidden.space import CONFIGURATIONS, PRIOR
from hidden.truth import boundary, holds
from tqdm import tqdm

from tune.capacity.search import CapacityResult, search_capacity
from tune.capacity.simulator_forecast import MAX_POOL_CAPACITY_RATIO, SimulatorForecast
from tune.records.requests import RequestLog
from tune.sim.simulator import simulate
from tune.spec.split import ROLES, Role
from tune.spec.trial import TrialSpec

BEATS = (0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.4, 1.8)
FIRST_SEED, OF_RACK, LEAST_QPS = 9000, 2, 1.0
ORDERS, TOLERANCE = 9, 1.005
PATH = Path(__file__).parent / "data" / "probe_costs.csv"


@dataclass(frozen=True)
class Search:
    """A row of the table; `beat_frac` 0 means that there was no rate to beat."""

    rack: int
    beat_frac: float
    given_up: bool
    runs: float
    boundary_frac: float
    other_beyond: float
    other_frac: float


def serve(rack: Rack, asked: TrialSpec) -> RequestLog:
    return simulate(rack.as_it_is(asked), rack.calibration(asked))


def true_boundary_qps(rack: Rack, spec: TrialSpec) -> float:
    """The median over ORDERS orders of lengths; 0 where none holds."""
    found = [boundary(lambda qps: holds(rack, spec, qps), 8.0, TOLERANCE)]
    if found[0]:
        found += [
            boundary(lambda qps, order=order: holds(rack, spec, qps, order), found[0], TOLERANCE, 1.015)  # type: ignore[misc]
            for order in range(1, ORDERS)
        ]
    return float(np.median(found))


def true_alone_qps(rack: Rack, spec: TrialSpec, role: Role, capacity_qps: float) -> float:
    """What the pool could do were the other no limit, up to MAX_POOL_CAPACITY_RATIO times the boundary."""
    most = MAX_POOL_CAPACITY_RATIO * capacity_qps
    if holds(rack, spec, most, alone=role):
        return most
    return boundary(lambda qps: holds(rack, spec, qps, alone=role), capacity_qps, TOLERANCE, 1.1)


def searches(task: tuple[int, int]) -> list[Search]:
    """Of the rack of a seed, and a configuration by its index; none where that holds less than LEAST_QPS."""
    seed, index = task
    rack, spec = draw_rack(seed), CONFIGURATIONS[index].spec
    true_qps = true_boundary_qps(rack, spec)
    if true_qps < LEAST_QPS:
        return []
    full = spec.model_copy(update={"load": spec.load.model_copy(update={"target_qps": true_qps})})
    full_s = float(serve(rack, full).done_ns.max()) / 1e9
    alone = [true_alone_qps(rack, spec, role, true_qps) for role in ROLES]
    other = int(np.argmax(alone))
    found = []
    for beat_frac in (0.0, *BEATS):
        deployment, answer = Deployment(spec, partial(serve, rack)), None
        early_stop_qps = beat_frac * true_qps or None
        for step in search_capacity(
            spec.load, SimulatorForecast(spec, PRIOR), deployment.measure, early_stop_qps
        ):
            answer = step if isinstance(step, CapacityResult) else None
        assert answer, "a search ends with an answer"
        stated = (answer.prefill_capacity_qps, answer.decode_capacity_qps)[other] / alone[other]
        figures = deployment.held_s / full_s, answer.capacity_qps / true_qps, alone[other] / true_qps, stated
        found.append(Search(seed, beat_frac, answer.censored, *(round(figure, 4) for figure in figures)))
    return found


def read(path: Path = PATH) -> list[Search]:
    with path.open(newline="") as file:
        return [
            Search(int(rack), float(beat_frac), given_up == "True", *map(float, figures))
            for rack, beat_frac, given_up, *figures in list(csv.reader(file))[1:]
        ]


def table(found: Sequence[Search]) -> Iterator[str]:
    yield (
        "| rate to beat / true boundary | given up | runs of full length, mean | "
        "boundary off by (median, p90) | the other pool off by (median, p90) |"
    )
    yield "|---|---|---|---|---|"
    for beat_frac in (0.0, *BEATS):
        some = [one for one in found if one.beat_frac == beat_frac]
        cells = [
            f"{beat_frac or 'none'}",
            f"{np.mean([one.given_up for one in some]):.0%}",
            f"{np.mean([one.runs for one in some]):.2f}",
            _off([one.boundary_frac for one in some]),
            _off([one.other_frac for one in some]),
        ]
        yield f"| {' | '.join(cells)} |"


def _off(fractions: Sequence[float]) -> str:
    median, most = np.quantile(np.abs(np.log(np.maximum(fractions, 0.01))), [0.5, 0.9])
    return f"{median:.1%}, {most:.1%}"


def main() -> None:
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
        tasks += [(seed, int(at)) for at in np.random.default_rng(seed).choice(free, OF_RACK, replace=False)]
    with ProcessPoolExecutor(options.processes) as pool:
        found = [one for some in tqdm(pool.map(searches, tasks), total=len(tasks)) for one in some]
    with options.rows.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(list(Search.__dataclass_fields__))
        rows.writerows(vars(one).values() for one in found)
    count = len(found) // (1 + len(BEATS))
    print(f"{datetime.now(UTC):%Y-%m-%d}  {options.racks} racks, {count} configurations")
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
