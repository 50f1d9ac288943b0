"""Deployments and GPU-hours until a search answers with a configuration near the best, on hidden racks.

    python benchmarks/hidden_racks.py [--held-out] [--racks 0 1 2] [--noise-seeds 5] [--methods tpe]

Simulated racks whose constants and mechanisms no method knows (hidden/racks.py), the same space for all
(hidden/space.py), true boundaries by exhaustive search (hidden/truth.py). A deployment tells the boundary of
its configuration with NOISE_SD of noise, or crashes; proposals that break a rule or are known cost nothing.
What the probes cost, and whether a deployment is given up and tells only a forecast, is drawn from searches
of probe_costs.py with as good a rate to beat. `calibrated`, `tpe` and `gp` give up, as in studies.
`tpe-rate` asks each deployment one rate, which it proposes too, and hears whether that held. The answer is
the configuration with the highest measured boundary (of `calibrated`: the highest expected one of those
measured; of `tpe-rate`: the highest rate that held); regret is that of its true boundary. Runs that never
come near count as CAP deployments and what those cost. After CONFIRMED_AFTER deployments the best three of
`calibrated` are measured again, three times each with noise of their own, and a rate is stated as
action=confirm does.
"""

from __future__ import annotations

# isort: split
import tune.__main__  # noqa: F401  as the command does, before numpy comes in

# isort: split
import argparse
import csv
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
from hidden.methods import METHODS, Calibrated, Method, RateSampled, Told, searches
from hidden.space import CONFIGURATIONS, SEED
from hidden.truth import path_of, read, read_racks
from probe_costs import Search
from probe_costs import read as read_searches
from tqdm import tqdm

from tune.results.stated import mean_of, pooled

CAP, MOST_PROPOSALS = 60, 1000
NOISE_SD = 0.02
BRING_UP_S, CRASH_S = 1200.0, 600.0
RATE, LEARN = "tpe-rate", ("calibrated", "calibrated-figures")
CONFIRMED_AFTER, CONFIRMED, REPEATS, CONFIDENCE = 16, 3, 3, 0.95
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


@dataclass(frozen=True)
class Stated:
    """Whether the stated rate is below the true boundary, how far below the best one, and what that cost."""

    holds: bool
    below_best_frac: float
    gpu_hours: float


Task = tuple[str, int, int, bool]
"""Method, rack, noise seed, whether the rack is held out."""


@cache
def probe_costs() -> dict[float, list[Search]]:
    """By the rate to beat over the boundary."""
    found: dict[float, list[Search]] = {}
    for one in read_searches():
        found.setdefault(one.beat_frac, []).append(one)
    return found


def searched(qps: float, beat_qps: float, draws: np.random.Generator) -> Search:
    """A search of a boundary at `qps`, where `beat_qps` is to be beaten; 0: nothing is."""
    rows = probe_costs()
    nearest = min(rows, key=lambda beat_frac: abs(beat_frac - beat_qps / max(qps, 0.01)))
    some = rows[nearest]
    return some[int(draws.integers(len(some)))]


def gpu_hours(index: int, qps: float | None, runs: float) -> float:
    """Of one deployment that is asked `runs` of full length at `qps`; None crashed."""
    spec = CONFIGURATIONS[index].spec
    held_s = CRASH_S
    if qps is not None:
        load = spec.load.at(max(qps, 0.5))
        held_s = BRING_UP_S + runs * load.expected_queries / load.target_qps
    return spec.hardware.gpus * held_s / 3600


def run(
    truth: Sequence[float | None], make: Callable[[int], Method], rack: int, seed: int, name: str
) -> tuple[list[Row], Stated | None]:
    """One search of CAP deployments. What a configuration measures depends on rack and seed alone."""
    confirmed: Stated | None = None
    noise = np.exp(np.random.default_rng([rack, seed, 2]).normal(0, NOISE_SD, len(truth)))
    draws = np.random.default_rng([rack, seed, 5])
    best = max(qps for qps in truth if qps is not None)
    method, known, rows, hours = make(1000 * rack + seed), dict[int, Told](), list[Row](), 0.0
    for number in range(MOST_PROPOSALS):
        index = method.propose(number)
        if index is not None and index not in known:
            qps, runs = truth[index], 0.0
            known[index] = Told("crashed")
            if qps is not None:
                noisy_qps = qps * float(noise[index])
                search = searched(noisy_qps, _to_beat(known) if method.beats else 0.0, draws)
                known[index], runs = Told("measured", noisy_qps), search.runs
                if search.given_up:
                    known[index] = Told("forecast", noisy_qps * search.boundary_frac)
            hours += gpu_hours(index, qps, runs)
            method.tell(number, index, known[index])
            regret = 1 - (truth[method.answer(known)] or 0.0) / best
            rows.append(Row(rack, seed, name, len(known), hours, regret))
            if len(known) == CONFIRMED_AFTER and isinstance(method, Calibrated):
                confirmed = stated(truth, method, known, seed)
            if len(known) == CAP or _is_told(rows):
                break
        else:
            method.tell(number, index, known[index] if index is not None else Told("broken"))
    return rows, confirmed


def _to_beat(known: Mapping[int, Told]) -> float:
    return max((told.qps for told in known.values() if told.status == "measured"), default=0.0)


def _is_told(rows: Sequence[Row]) -> bool:
    """Whether all that is asked of a run is known: first times, and the states."""
    return len(rows) >= max(STATES) and min(row.regret for row in rows) <= min(NEAR)


def run_by_rate(truth: Sequence[float | None], rack: int, seed: int) -> list[Row]:
    """The same for one rate a deployment."""
    noise = np.random.default_rng([rack, seed, 3])
    best = max(qps for qps in truth if qps is not None)
    method, held, rows, hours = RateSampled(1000 * rack + seed), (0.0, SEED), list[Row](), 0.0
    for _ in range(MOST_PROPOSALS):
        index, qps = method.propose()
        boundary = None if index is None else truth[index]
        if boundary is not None:
            boundary *= float(np.exp(noise.normal(0, NOISE_SD)))
        method.tell(qps, boundary)
        if index is None:
            continue
        hours += gpu_hours(index, None if boundary is None else qps, 1.0)
        if boundary is not None and qps <= boundary:
            held = max(held, (qps, index))
        regret = 1 - (truth[held[1]] or 0.0) / best if held[0] else 1.0
        rows.append(Row(rack, seed, "tpe-rate", len(rows) + 1, hours, regret))
        if len(rows) == CAP or _is_told(rows):
            break
    return rows


def first(rows: Sequence[Row], near: float) -> tuple[float, float]:
    """Deployments and GPU-hours of one run to a regret of `near`; what CAP cost where it never was."""
    hit = next((row for row in rows if row.regret <= near), rows[-1])
    return (hit.deployments, hit.gpu_hours) if hit.regret <= near else (CAP, hit.gpu_hours)


def table(runs: Sequence[Sequence[Row]]) -> str:
    """Markdown, a row a method: medians to 5 % and 2 %, and the share of runs within 2 % after STATES."""
    lines = [
        "| method | runs | to 5 %: deployments | GPU-hours, median | mean | to 2 %: deployments | "
        "GPU-hours, median | mean | " + " | ".join(f"within 2 % at {n}" for n in STATES) + " |",
        "|---" * (8 + len(STATES)) + "|",
    ]  # fmt: skip
    for name in dict.fromkeys(rows[0].method for rows in runs):
        mine = [rows for rows in runs if rows[0].method == name]
        cells = [name, str(len(mine))]
        for near in NEAR:
            deployments, hours = zip(*(first(rows, near) for rows in mine), strict=True)
            cells += [f"{median(deployments):g}", f"{median(hours):,.0f}", f"{np.mean(hours):,.0f}"]
        for n in STATES:
            cells.append(f"{np.mean([rows[min(n, len(rows)) - 1].regret <= 0.02 for rows in mine]):.0%}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def stated(truth: Sequence[float | None], method: Calibrated, known: Mapping[int, Told], seed: int) -> Stated:
    """The rate that action=confirm would state of the best CONFIRMED of `known`."""
    draws, best = np.random.default_rng([seed, 4]), max(qps for qps in truth if qps is not None)
    chosen = method.best(known, CONFIRMED)
    logs = [
        [float(np.log(truth[index] or 0.0)) + draws.normal(0, NOISE_SD) for _ in range(REPEATS)]
        for index in chosen
    ]
    noise = pooled(logs)
    assert noise is not None, "each is repeated"
    winner = max(range(len(chosen)), key=lambda at: mean_of(logs[at]))
    qps = float(np.exp(mean_of(logs[winner]) - noise.below(CONFIDENCE, 1 / REPEATS, len(chosen))))
    runs = float(np.mean([one.runs for one in probe_costs()[0.0]]))
    hours = sum(REPEATS * gpu_hours(index, truth[index], runs) for index in chosen)
    return Stated(qps <= (truth[chosen[winner]] or 0.0), 1 - qps / best, hours)


def one(task: Task) -> tuple[list[Row], Stated | None]:
    name, rack, seed, held_out = task
    truth = read(path_of("held-out" if held_out else "development", rack))
    if name == RATE:
        return run_by_rate(truth, rack, seed), None
    return run(truth, METHODS[name], rack, seed, name)


def write(path: Path, runs: Sequence[Sequence[Row]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(list(Row.__dataclass_fields__))
        for rows in runs:
            for row in rows:
                cells = replace(row, gpu_hours=round(row.gpu_hours, 1), regret=round(row.regret, 4))
                writer.writerow(vars(cells).values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--held-out", action="store_true", help="racks on which nothing was tried")
    parser.add_argument("--racks", type=int, nargs="+", help="all that are known, unless told")
    parser.add_argument("--noise-seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=[RATE, *METHODS], default=[RATE, *METHODS])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rows", type=Path, help="a CSV with a row a deployment")
    options = parser.parse_args()
    name = "held-out" if options.held_out else "development"
    racks = options.racks or sorted(read_racks(name))
    for method in options.methods:
        if method in LEARN:
            searches(method == "calibrated")  # simulated once, before processes fork
    tasks = [
        (method, rack, seed, options.held_out)
        for method in options.methods
        for rack in racks
        for seed in range(options.noise_seeds)
    ]
    with ProcessPoolExecutor(options.processes, get_context("fork")) as pool:
        done = list(tqdm(pool.map(one, tasks), total=len(tasks), unit="run"))
    runs = [rows for rows, _ in done]
    if options.rows:
        write(options.rows, runs)
    print(f"{datetime.now(UTC):%Y-%m-%d}  tune {version('tune')}, {name} racks {racks}, "
          f"{options.noise_seeds} noise seeds, cap {CAP}")  # fmt: skip
    print(table(runs))
    for method in options.methods:
        told = [found for rows, found in done if found and rows[0].method == method]
        if told:
            print(summary(method, told))


def summary(method: str, told: Sequence[Stated]) -> str:
    below = [found.below_best_frac for found in told]
    return (
        f"{method}, confirmed after {CONFIRMED_AFTER}: of {len(told)} stated rates "
        f"{np.mean([found.holds for found in told]):.0%} hold; {median(below):.1%} below the best (median); "
        f"{median(found.gpu_hours for found in told):,.0f} GPU-hours"
    )


if __name__ == "__main__":
    main()
