"""Deployments and GPU-hours until a search answers with a configuration near the best, on hidden racks.

    python benchmarks/hidden_racks.py [--racks 0 1 2 3] [--noise-seeds 5] [--methods random prior local tpe]

Simulated racks whose constants and mechanisms no method knows (hidden/racks.py), the same space for all
(hidden/space.py), true boundaries by exhaustive search (hidden/truth.py). A deployment tells the boundary of
its configuration with NOISE_SD of noise, or crashes; proposals that break a rule or are known cost nothing.
The answer is the configuration with the highest measured boundary; regret is that of its true one.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
from hidden.methods import METHODS, Method, Told
from hidden.space import CONFIGURATIONS
from hidden.truth import path_of, read

CAP, MOST_PROPOSALS = 60, 1000
NOISE_SD = 0.02
BRING_UP_S, CRASH_S = 1200.0, 600.0
COST_RUNS = 1.34
"""Runs of full length that a search for the highest rate costs: the median of benchmarks/capacity.py."""
STATES = (1, 3, 5, 8, 16)
NEAR = (0.05, 0.02)


@dataclass(frozen=True)
class Row:
    """After `deployments`, which cost `gpu_hours`, the method answers with a configuration of `regret`."""

    rack: int
    noise_seed: int
    method: str
    deployments: int
    gpu_hours: float
    regret: float


def gpu_hours(index: int, qps: float | None) -> float:
    """Of one deployment whose configuration has the boundary `qps`; None crashed."""
    spec = CONFIGURATIONS[index].spec
    held_s = CRASH_S
    if qps is not None:
        load = spec.load.at(max(qps, 0.5))
        held_s = BRING_UP_S + COST_RUNS * load.expected_queries / load.target_qps
    return spec.hardware.gpus * held_s / 3600


def run(
    truth: Sequence[float | None], make: Callable[[int], Method], rack: int, seed: int, name: str
) -> list[Row]:
    """One search of CAP deployments. What a configuration measures depends on rack and seed alone."""
    noise = np.exp(np.random.default_rng([rack, seed, 2]).normal(0, NOISE_SD, len(truth)))
    best = max(qps for qps in truth if qps is not None)
    method, known, rows, hours = make(1000 * rack + seed), dict[int, Told](), list[Row](), 0.0
    for number in range(MOST_PROPOSALS):
        index = method.propose(number)
        if index is not None and index not in known:
            qps = truth[index]
            known[index] = Told("crashed") if qps is None else Told("measured", qps * float(noise[index]))
            hours += gpu_hours(index, qps)
            answer = max(known, key=lambda one: known[one].qps)
            regret = 1 - (truth[answer] or 0.0) / best
            rows.append(Row(rack, seed, name, len(known), hours, regret))
        method.tell(number, index, known[index] if index is not None else Told("broken"))
        if len(known) == CAP:
            break
    return rows


def first(rows: Sequence[Row], near: float) -> tuple[float, float]:
    """Deployments and GPU-hours of one run to a regret of `near`, its last ones where it never was."""
    hit = next((row for row in rows if row.regret <= near), rows[-1])
    return hit.deployments, hit.gpu_hours


def table(runs: Sequence[Sequence[Row]]) -> str:
    """Markdown, a row a method: medians to 5 % and 2 %, and the share of runs within 2 % after STATES."""
    lines = [
        "| method | runs | to 5 %: deployments | GPU-hours | to 2 %: deployments | GPU-hours | "
        + " | ".join(f"within 2 % at {n}" for n in STATES) + " |",
        "|---" * (6 + len(STATES)) + "|",
    ]  # fmt: skip
    for name in dict.fromkeys(rows[0].method for rows in runs):
        mine = [rows for rows in runs if rows[0].method == name]
        cells = [name, str(len(mine))]
        for near in NEAR:
            deployments, hours = zip(*(first(rows, near) for rows in mine), strict=True)
            cells += [f"{median(deployments):g}", f"{median(hours):,.0f}"]
        for n in STATES:
            cells.append(f"{np.mean([rows[min(n, len(rows)) - 1].regret <= 0.02 for rows in mine]):.0%}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--held-out", action="store_true", help="racks on which nothing was tried")
    parser.add_argument(
        "--racks", type=int, nargs="+", help="all whose true boundaries are known, unless told"
    )
    parser.add_argument("--noise-seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--rows", type=Path, help="a CSV with a row a deployment")
    options = parser.parse_args()
    name = "held-out" if options.held_out else "development"
    racks = options.racks or sorted(int(path.stem) for path in path_of(name, 0).parent.glob("*.csv"))
    truths = {rack: read(path_of(name, rack)) for rack in racks}
    runs = [
        run(truths[rack], METHODS[method], rack, seed, method)
        for method in options.methods
        for rack in racks
        for seed in range(options.noise_seeds)
    ]
    if options.rows:
        with options.rows.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(list(Row.__dataclass_fields__))
            writer.writerows(tuple(vars(row).values()) for rows in runs for row in rows)
    print(f"{datetime.now(UTC):%Y-%m-%d}  {name} racks {racks}, {options.noise_seeds} noise seeds, cap {CAP}")
    print(table(runs))


if __name__ == "__main__":
    main()
