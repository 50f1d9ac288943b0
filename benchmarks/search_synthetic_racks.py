"""Count deployments and GPU-hours until a search on synthetic racks answers with a near-best configuration.

    python benchmarks/search_synthetic_racks.py [--held-out] [--racks 0 1 2] [--noise-seeds 5] [--methods tpe]

The racks are simulated, with constants and mechanisms that no method knows (synthetic_racks/racks.py). The
space is one for all methods (synthetic_racks/space.py); true capacities come from an exhaustive search
(synthetic_racks/true_capacities.py). A deployment shows the capacity of its configuration with NOISE_SD of
noise, or crashes; suggestions that break a rule or are known cost nothing. Three things are taken from the
searches in probe_costs.py with a similar rate to beat, all of one rack for a run: what the probes cost,
whether the deployment is stopped early and shows only a forecast, and how accurate the capacity is that it
shows of the pool that is not the bottleneck. All methods but `random` stop early, as studies do; `surrogate`
also stops where other configurations are expected to be better. All but `prior` begin with the seed's
configuration. No run ends by study.min_gain. `tpe-rate` runs each deployment at one rate, which it suggests
too, and observes whether that held. `surrogate` predicts a 90 % interval of each deployment: counted is how
many of the first INTERVALS contain what the deployment measures, or would measure where it is stopped early,
without those that crash.

The answer is the configuration with the highest measured capacity (of `surrogate`: the highest expected one
of those measured; of `tpe-rate`: the highest rate that held); regret is that of its true capacity. Runs that
never reach the regret in question count as CAP deployments and what those cost. After CONFIRMED_AFTER
deployments the best CONFIRMED are measured again, REPEATS times each with noise of their own, and a rate is
guaranteed as action=confirm does.
"""

from __future__ import annotations

# isort: split
import tune.__main__  # noqa: F401  as the command does, before numpy comes in

# isort: split
import argparse
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
from probe_costs import SearchCost, read_costs
from rich.progress import track
from synthetic_racks.capacity_tables import TrueCapacities, read_set
from synthetic_racks.methods import METHODS, Method, RateSearch, Result, optimizers
from synthetic_racks.result_tables import (
    CAP,
    CHECKPOINTS,
    NEAR,
    Guaranteed,
    Row,
    ended_table,
    guaranteed_table,
    interval_table,
    regret_table,
    summarise_run,
    write_rows,
    write_runs,
)
from synthetic_racks.space import CONFIGURATIONS, SEED

from tune.analysis.repeated_capacities import mean_of, pooled, student_quantile
from tune.capacity.simulator_forecast import MAX_POOL_CAPACITY_RATIO
from tune.records.posterior_summary import Interval
from tune.study.trial_requests import SELECTION_BIAS_FRAC
from tune.surrogate.emulator import log_soft_min_correction

MAX_SUGGESTIONS = 1000
NOISE_SD = 0.02
BRING_UP_S, CRASH_S = 1200.0, 600.0
RATE, WITH_OPTIMIZER = "tpe-rate", ("surrogate", "surrogate-figures")
CONFIRMED_AFTER, CONFIRMED, REPEATS, CONFIDENCE = 16, 3, 3, 0.95
CONFIRMED_FRAC = 0.986
"""Verified rate over the capacity that a deployment shows: median of benchmarks/capacity.py. The rate to beat
is lower by SELECTION_BIAS_FRAC, as in studies."""

FAR = 2.0
"""Rate to beat over the capacity at which one short probe shows that it is out of reach."""

Task = tuple[str, int, int, bool, int]
"""Method, rack, noise seed, whether the rack is held out, deployments at a time."""


@cache
def costs_by_rack() -> tuple[tuple[SearchCost, ...], ...]:
    """Return the searches of each rack: their errors depend on the rack."""
    by_rack: dict[int, list[SearchCost]] = {}
    for cost in read_costs():
        by_rack.setdefault(cost.rack, []).append(cost)
    return tuple(map(tuple, by_rack.values()))


def similar_search(
    early_stop_frac: float, other_pool_ratio: float, costs: Sequence[SearchCost]
) -> SearchCost:
    """Return the search of the nearest rate to beat and, among those, of the nearest ratio of the pools."""
    nearest = min((cost.early_stop_frac for cost in costs), key=lambda frac: abs(frac - early_stop_frac))
    candidates = (cost for cost in costs if cost.early_stop_frac == nearest)
    return min(candidates, key=lambda cost: abs(np.log(cost.other_pool_ratio / other_pool_ratio)))


def deploy(
    qps: float,
    pool_capacity_qps: tuple[float, float],
    observed_qps: float,
    early_stop_qps: float,
    costs: Sequence[SearchCost],
) -> tuple[Result, float]:
    """Return what a deployment shows and what it costs in runs of full length.

    Its capacity is `qps`, measured as `observed_qps`; its pools could do `pool_capacity_qps`. It behaves as a
    similar search of `costs`. The pool that is the bottleneck is observed through the capacity. A deployment
    that holds no rate shows only that, and costs what one does that is far from the rate to beat.
    """
    if not qps:
        return Result("below"), similar_search(FAR, 1.0, costs).runs
    ratio = min(max(pool_capacity_qps) / qps, MAX_POOL_CAPACITY_RATIO)
    search = similar_search(early_stop_qps / observed_qps, ratio, costs)
    observed_qps *= search.capacity_frac if search.stopped_early else 1.0
    pools = np.array(pool_capacity_qps) * observed_qps / qps
    other = int(pools.argmax())
    pools[1 - other] = observed_qps * np.exp(log_soft_min_correction(np.log(np.maximum(pools, 0.01))))
    pools[other] = ratio * observed_qps * search.other_pool_frac
    prefill_qps, decode_qps = pools.tolist()
    status: Literal["forecast", "measured"] = "forecast" if search.stopped_early else "measured"
    result = Result(status, observed_qps, prefill_capacity_qps=prefill_qps, decode_capacity_qps=decode_qps)
    return result, search.runs


def gpu_hours(index: int, qps: float | None, runs: float) -> float:
    """Return the cost of a deployment with `runs` of full length at `qps`.

    A rate of 0 stands for that of the reference, None for a crash.
    """
    spec = CONFIGURATIONS[index].spec
    occupied_s = CRASH_S
    if qps is not None:
        load = spec.load.at(qps or spec.load.target_qps)
        occupied_s = BRING_UP_S + runs * load.expected_queries / load.target_qps
    return spec.hardware.gpus * occupied_s / 3600


def run(
    truth: TrueCapacities,
    make: Callable[[int], Method],
    rack: int,
    seed: int,
    name: str,
    *,
    batch: int = 1,
) -> tuple[list[Row], Guaranteed | None]:
    """Run one search of CAP deployments, `batch` at a time.

    A configuration's measurement depends on rack and seed alone.
    """
    confirmed: Guaranteed | None = None
    capacities = truth.capacity_qps
    noise = np.exp(np.random.default_rng([rack, seed, 2]).normal(0, NOISE_SD, len(capacities)))
    costs = costs_by_rack()[int(np.random.default_rng([rack, seed, 5]).integers(len(costs_by_rack())))]
    best = max(qps for qps in capacities if qps is not None)
    method, known, rows, hours = make(1000 * rack + seed), dict[int, Result](), list[Row](), 0.0
    for start in range(0, MAX_SUGGESTIONS, batch):
        before = dict(known)
        for number, index, early_stop_qps, gain_frac, interval in _suggested(method, start, batch, before):
            if index is not None and index not in known:
                qps, runs = capacities[index], 0.0
                inside: bool | None = None
                known[index] = Result("crashed")
                if qps is not None:
                    pools = truth.pool_capacity_qps[index]
                    observed_qps = qps * float(noise[index])
                    known[index], runs = deploy(qps, pools, observed_qps, early_stop_qps, costs)
                    if interval:
                        inside = interval.low <= observed_qps <= interval.high
                hours += gpu_hours(index, qps, runs)
                method.observe(number, index, known[index])
                answer = method.best(known, 1)
                regret = 1 - (capacities[answer[0]] or 0.0) / best if answer else 1.0
                rows.append(Row(rack, seed, name, len(known), hours, regret, gain_frac, inside))
                if len(known) == CONFIRMED_AFTER and answer:
                    confirmed = guarantee(capacities, method.best(known, CONFIRMED), (rack, seed), hours)
            else:
                method.observe(number, index, known[index] if index is not None else Result("refused"))
        if len(known) >= CAP or _is_complete(rows):
            break
    return rows, confirmed


def _suggested(
    method: Method, start: int, count: int, known: Mapping[int, Result]
) -> list[tuple[int, int | None, float, float | None, Interval | None]]:
    """Return `count` suggestions: number, configuration, early-stop threshold, expected gain and interval."""
    suggestions = []
    for number in range(start, start + count):
        index = method.suggest(number)
        early_stop_qps = _to_beat(known, method.early_stop_below_qps) if method.stops_early else 0.0
        suggestions.append((number, index, early_stop_qps, method.gain_frac, method.interval))
    return suggestions


def _to_beat(known: Mapping[int, Result], early_stop_below_qps: float) -> float:
    """Return the rate to beat as studies compute it; 0 as long as there is no best."""
    best_qps = max((result.qps for result in known.values() if result.status == "measured"), default=0.0)
    return (
        max(CONFIRMED_FRAC * (1 - SELECTION_BIAS_FRAC) * best_qps, early_stop_below_qps) if best_qps else 0.0
    )


def _is_complete(rows: Sequence[Row]) -> bool:
    """Return whether the rows give all that the tables need: costs to each regret, and the checkpoints."""
    return len(rows) >= max(CHECKPOINTS) and min(row.regret for row in rows) <= min(NEAR)


def run_by_rate(truth: Sequence[float | None], rack: int, seed: int) -> list[Row]:
    """Run one search of CAP deployments with one rate each."""
    noise = np.random.default_rng([rack, seed, 3])
    best = max(qps for qps in truth if qps is not None)
    method, held, rows, hours = RateSearch(1000 * rack + seed), (0.0, SEED), list[Row](), 0.0
    for _ in range(MAX_SUGGESTIONS):
        index, qps = method.suggest()
        capacity = None if index is None else truth[index]
        if capacity is not None:
            capacity *= float(np.exp(noise.normal(0, NOISE_SD)))
        method.observe(qps, capacity)
        if index is None:
            continue
        hours += gpu_hours(index, None if capacity is None else qps, 1.0)
        if capacity is not None and qps <= capacity:
            held = max(held, (qps, index))
        regret = 1 - (truth[held[1]] or 0.0) / best if held[0] else 1.0
        rows.append(Row(rack, seed, RATE, len(rows) + 1, hours, regret))
        if len(rows) == CAP or _is_complete(rows):
            break
    return rows


def guarantee(
    truth: Sequence[float | None],
    chosen: Sequence[int],
    seeds: tuple[int, int],
    searched_gpu_hours: float,
) -> Guaranteed:
    """Return the lower bound of the best mean capacity of `chosen`; `seeds`: rack and noise seed."""
    draws, best = np.random.default_rng([*seeds, 4]), max(qps for qps in truth if qps is not None)
    logs = [
        [float(np.log(truth[index] or 0.0)) + draws.normal(0, NOISE_SD) for _ in range(REPEATS)]
        for index in chosen
    ]
    noise = pooled(logs)
    assert noise is not None, "each is repeated"
    winner = max(range(len(chosen)), key=lambda row: mean_of(logs[row]))
    level = CONFIDENCE ** (1 / len(chosen))  # Sidak: bounds of all means hold together
    margin = student_quantile(level, noise.degrees_of_freedom) * noise.sd / REPEATS**0.5
    qps = float(np.exp(mean_of(logs[winner]) - margin))
    exact = [cost.runs for costs in costs_by_rack() for cost in costs if not cost.early_stop_frac]
    runs = float(np.mean(exact))
    hours = sum(REPEATS * gpu_hours(index, truth[index], runs) for index in chosen)
    return Guaranteed(qps <= (truth[chosen[winner]] or 0.0), 1 - qps / best, searched_gpu_hours, hours)


def run_task(task: Task) -> tuple[list[Row], Guaranteed | None]:
    """Run one search in a worker process."""
    name, rack, seed, held_out, batch = task
    truth = read_set("held_out" if held_out else "development").capacities[rack]
    if name == RATE:
        return run_by_rate(truth.capacity_qps, rack, seed), None
    return run(truth, METHODS[name], rack, seed, name, batch=batch)


def main() -> None:
    """Run the searches that the command line names and print their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--held-out", action="store_true", help="racks on which nothing was tried")
    parser.add_argument("--racks", type=int, nargs="+", help="all of the set, unless given")
    parser.add_argument("--noise-seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=[RATE, *METHODS], default=[RATE, *METHODS])
    parser.add_argument("--batch", type=int, default=1, help="deployments at a time; only of surrogate")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rows", type=Path, help="a CSV with a line a deployment")
    parser.add_argument("--runs", type=Path, help="a CSV with a line a run")
    options = parser.parse_args()
    name = "held_out" if options.held_out else "development"
    racks = options.racks or sorted(read_set(name).capacities)
    for method in options.methods:
        if method in WITH_OPTIMIZER:
            optimizers(method == "surrogate")  # simulated once, before processes fork
    tasks = [
        (method, rack, seed, options.held_out, options.batch)
        for method in options.methods
        for rack in racks
        for seed in range(options.noise_seeds)
    ]
    with ProcessPoolExecutor(options.processes, get_context("fork")) as pool:
        done = list(track(pool.map(run_task, tasks), total=len(tasks)))
    runs = [rows for rows, _ in done]
    if options.rows:
        write_rows(options.rows, runs)
    summaries = [summarise_run(rows) for rows in runs]
    if options.runs:
        write_runs(options.runs, summaries)
    print(f"{datetime.now(UTC):%Y-%m-%d}  tune {version('tune')}, {name} racks {racks}, "
          f"{options.noise_seeds} noise seeds, cap {CAP}")  # fmt: skip
    print(regret_table(summaries))
    print()
    print(ended_table(summaries))
    print()
    print(interval_table(summaries))
    print()
    print(guaranteed_table([(rows[0].method, rate) for rows, rate in done if rate]))


if __name__ == "__main__":
    main()
