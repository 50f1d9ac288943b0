"""What the capacity search spends on a deployment, and what it hears, by how far off the rate to beat is.

    python benchmarks/probe_costs.py [--configurations 14] [--processes 2] [--rows probe_costs.csv]

The configurations and racks of capacity.py. Each is searched without a rate to beat and with its true
boundary times each of BEATS. A row a search: whether it was given up, what it cost in runs of full length at
its true boundary, drained, and the boundary that it states over the true one. benchmarks/hidden_racks.py
draws from these rows.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from capacity import CALIBRATION, Deployment, hidden_rack, random_trial, run, true_boundary_qps
from tqdm import tqdm

from tune.probe.capacity import Answer, explore
from tune.sim.forecast import RackForecast
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec

BEATS = (0.95, 1.0, 1.05, 1.1, 1.2, 1.4, 1.8)
ORDERS = 7
"""Of which half hold the true boundary."""

PATH = Path(__file__).parent / "data" / "probe_costs.csv"


@dataclass(frozen=True)
class Search:
    """`beat_frac`: the rate to beat over the true boundary, 0 without one."""

    beat_frac: float
    given_up: bool
    runs: float
    boundary_frac: float


def searches(task: tuple[TrialSpec, Calibration]) -> list[Search]:
    spec, rack = task
    true_qps = true_boundary_qps(spec, rack, ORDERS)
    full_s = float(run(spec, rack, true_qps, spec.load.length_seed).done_ns.max()) / 1e9
    found = []
    for beat_frac in (0.0, *BEATS):
        deployment, answer = Deployment(spec, rack), None
        beat_qps = beat_frac * true_qps or None
        for step in explore(spec.load, RackForecast(spec, CALIBRATION), deployment.measure, beat_qps):
            answer = step if isinstance(step, Answer) else None
        assert answer, "a search ends with an answer"
        runs, boundary_frac = deployment.held_s / full_s, answer.boundary_qps / true_qps
        found.append(Search(beat_frac, answer.censored, round(runs, 3), round(boundary_frac, 4)))
    return found


def read(path: Path = PATH) -> list[Search]:
    with path.open(newline="") as file:
        return [
            Search(float(row["beat_frac"]), row["given_up"] == "True", float(row["runs"]),
                   float(row["boundary_frac"])) for row in csv.DictReader(file)
        ]  # fmt: skip


def table(found: Sequence[Search]) -> Iterator[str]:
    yield "| rate to beat / true boundary | given up | runs of full length | forecast of those off by (sd) |"
    yield "|---|---|---|---|"
    for beat_frac in (0.0, *BEATS):
        some = [one for one in found if one.beat_frac == beat_frac]
        off = [np.log(one.boundary_frac) for one in some if one.given_up]
        yield (
            f"| {beat_frac or 'none'} | {np.mean([one.given_up for one in some]):.0%} | "
            f"{np.mean([one.runs for one in some]):.2f} | {f'{np.std(off):.1%}' if off else ''} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configurations", type=int, default=14)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rows", type=Path, default=PATH)
    options = parser.parse_args()
    draws = np.random.default_rng(0)
    tasks = [(random_trial(draws), hidden_rack(draws)) for _ in range(options.configurations)]
    with ProcessPoolExecutor(options.processes) as pool:
        found = [one for some in tqdm(pool.map(searches, tasks), total=len(tasks)) for one in some]
    with options.rows.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(list(Search.__dataclass_fields__))
        rows.writerows(vars(one).values() for one in found)
    print(f"{datetime.now(UTC):%Y-%m-%d}  {len(tasks)} configurations")
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
