"""Deployments and GPU-hours until a search answers with a configuration near the best, on hidden racks.

    python benchmarks/hidden_racks.py [--held-out] [--racks 0 1 2] [--noise-seeds 5] [--methods tpe]

Simulated racks whose constants and mechanisms no method knows (hidden/racks.py), the same space for all
(hidden/space.py), true boundaries by exhaustive search (hidden/truth.py). A deployment tells the boundary of
its configuration with NOISE_SD of noise, or crashes; proposals that break a rule or are known cost nothing.
What the probes cost, whether a deployment is given up and tells only a forecast, and how exact it tells what
the pool that did not bind could do alone, is that of searches of probe_costs.py with as good a rate to beat,
all on one rack for a run. All but `random` give up, as in studies, `surrogate` also what others should
outdo, and all but `prior` begin with the seed's configuration. No run is ended by study.min_gain. `tpe-rate`
asks each deployment one rate, which it proposes too, and hears whether that held.

The answer is the configuration with the highest measured boundary (of `surrogate`: the highest expected one
of those measured; of `tpe-rate`: the highest rate that held); regret is that of its true boundary. Runs that
never come near count as CAP deployments and what those cost. After CONFIRMED_AFTER deployments the best
CONFIRMED are measured again, REPEATS times each with noise of their own, and a rate is stated as
action=confirm does.
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
from hidden.methods import METHODS, Method, RateSampled, Told, searches
from hidden.space import CONFIGURATIONS, SEED
from hidden.tables import CAP, NEAR, STATES, Row, Stated, confirmed_table, ended_table, table, write
from hidden.truth import Truth, path_of, read, read_racks, read_truth
from probe_costs import Search
from probe_costs import read as read_searches
from tqdm import tqdm

from tune.analysis.guaranteed_rates import mean_of, pooled
from tune.capacity.simulator_forecast import MAX_POOL_CAPACITY_RATIO
from tune.study.loop import LUCK_FRAC
from tune.surrogate.emulator import log_soft_min_correction

MOST_PROPOSALS = 1000
NOISE_SD = 0.02
BRING_UP_S, CRASH_S = 1200.0, 600.0
RATE, LEARN = "tpe-rate", ("surrogate", "surrogate-figures")
CONFIRMED_AFTER, CONFIRMED, REPEATS, CONFIDENCE = 16, 3, 3, 0.95
CONFIRMED_FRAC = 0.986
"""Of the boundary that a deployment tells, the rate that it confirms: median of benchmarks/capacity.py. What
studies take off for luck is taken off of that."""

FAR = 2.0
"""Times the boundary: a rate to beat that one short probe tells out of reach."""

Task = tuple[str, int, int, bool]
"""Method, rack, noise seed, whether the rack is held out."""


@cache
def probe_costs() -> tuple[tuple[Search, ...], ...]:
    """Searches of one rack each: how far off they are goes with the rack."""
    found: dict[int, list[Search]] = {}
    for one in read_searches():
        found.setdefault(one.rack, []).append(one)
    return tuple(map(tuple, found.values()))


def searched(beat_frac: float, beyond: float, of_rack: Sequence[Search]) -> Search:
    """The search with about as good a rate to beat, whose other pool could do about as much more."""
    at = min((one.beat_frac for one in of_rack), key=lambda frac: abs(frac - beat_frac))
    some = (one for one in of_rack if one.beat_frac == at)
    return min(some, key=lambda one: abs(np.log(one.other_beyond / beyond)))


def deployed(
    qps: float,
    pool_capacity_qps: tuple[float, float],
    told_qps: float,
    early_stop_qps: float,
    of_rack: Sequence[Search],
) -> tuple[Told, float]:
    """What a deployment tells, and what that cost in runs of full length, as searches `of_rack` came to.

    It holds `qps`, measured as `told_qps`; its pools alone could do `pool_capacity_qps`. Of the one that binds it
    tells what the boundary says. One that holds no rate tells only that, and costs what one does that is far
    from the rate to beat.
    """
    if not qps:
        return Told("below"), searched(FAR, 1.0, of_rack).runs
    beyond = min(max(pool_capacity_qps) / qps, MAX_POOL_CAPACITY_RATIO)
    search = searched(early_stop_qps / told_qps, beyond, of_rack)
    told_qps *= search.boundary_frac if search.given_up else 1.0
    told = np.array(pool_capacity_qps) * told_qps / qps
    other = int(told.argmax())
    told[1 - other] = told_qps * np.exp(log_soft_min_correction(np.log(np.maximum(told, 0.01))))
    told[other] = beyond * told_qps * search.other_frac
    prefill_capacity_qps, decode_capacity_qps = told.tolist()
    status: Literal["forecast", "measured"] = "forecast" if search.given_up else "measured"
    return Told(
        status, told_qps, prefill_capacity_qps=prefill_capacity_qps, decode_capacity_qps=decode_capacity_qps
    ), search.runs


def gpu_hours(index: int, qps: float | None, runs: float) -> float:
    """Of one deployment that is asked `runs` of full length at `qps`; 0: at the reference's rate; None:
    it crashed."""
    spec = CONFIGURATIONS[index].spec
    held_s = CRASH_S
    if qps is not None:
        load = spec.load.at(qps or spec.load.target_qps)
        held_s = BRING_UP_S + runs * load.expected_queries / load.target_qps
    return spec.hardware.gpus * held_s / 3600


def run(
    truth: Truth, make: Callable[[int], Method], rack: int, seed: int, name: str
) -> tuple[list[Row], Stated | None]:
    """One search of CAP deployments. What a configuration measures depends on rack and seed alone."""
    confirmed: Stated | None = None
    boundaries = truth.capacity_qps
    noise = np.exp(np.random.default_rng([rack, seed, 2]).normal(0, NOISE_SD, len(boundaries)))
    of_rack = probe_costs()[int(np.random.default_rng([rack, seed, 5]).integers(len(probe_costs())))]
    best = max(qps for qps in boundaries if qps is not None)
    method, known, rows, hours = make(1000 * rack + seed), dict[int, Told](), list[Row](), 0.0
    for number in range(MOST_PROPOSALS):
        index = method.propose(number)
        if index is not None and index not in known:
            qps, runs = boundaries[index], 0.0
            known[index] = Told("crashed")
            if qps is not None:
                early_stop_qps = _to_beat(known, method.early_stop_below_qps) if method.beats else 0.0
                known[index], runs = deployed(
                    qps, truth.pool_capacity_qps[index], qps * float(noise[index]), early_stop_qps, of_rack
                )
            hours += gpu_hours(index, qps, runs)
            method.tell(number, index, known[index])
            answer = method.best(known, 1)
            regret = 1 - (boundaries[answer[0]] or 0.0) / best if answer else 1.0
            rows.append(Row(rack, seed, name, len(known), hours, regret, method.gain_frac))
            if len(known) == CONFIRMED_AFTER and answer:
                confirmed = stated(boundaries, method.best(known, CONFIRMED), (rack, seed), hours)
            if len(known) == CAP or _is_told(rows):
                break
        else:
            method.tell(number, index, known[index] if index is not None else Told("broken"))
    return rows, confirmed


def _to_beat(known: Mapping[int, Told], early_stop_below_qps: float) -> float:
    """As in studies: 0 as long as there is no best."""
    best_qps = max((told.qps for told in known.values() if told.status == "measured"), default=0.0)
    return max(CONFIRMED_FRAC * (1 - LUCK_FRAC) * best_qps, early_stop_below_qps) if best_qps else 0.0


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


def stated(
    truth: Sequence[float | None],
    chosen: Sequence[int],
    run_of: tuple[int, int],
    searched_gpu_hours: float,
) -> Stated:
    """The rate that action=confirm would state of the configurations `chosen`; `run_of` a rack and seed."""
    draws, best = np.random.default_rng([*run_of, 4]), max(qps for qps in truth if qps is not None)
    logs = [
        [float(np.log(truth[index] or 0.0)) + draws.normal(0, NOISE_SD) for _ in range(REPEATS)]
        for index in chosen
    ]
    noise = pooled(logs)
    assert noise is not None, "each is repeated"
    winner = max(range(len(chosen)), key=lambda at: mean_of(logs[at]))
    qps = float(np.exp(mean_of(logs[winner]) - noise.one_sided(CONFIDENCE, 1 / REPEATS, len(chosen))))
    runs = float(np.mean([one.runs for some in probe_costs() for one in some if not one.beat_frac]))
    hours = sum(REPEATS * gpu_hours(index, truth[index], runs) for index in chosen)
    return Stated(qps <= (truth[chosen[winner]] or 0.0), 1 - qps / best, searched_gpu_hours, hours)


def one(task: Task) -> tuple[list[Row], Stated | None]:
    name, rack, seed, held_out = task
    path = path_of("held-out" if held_out else "development", rack)
    if name == RATE:
        return run_by_rate(read(path), rack, seed), None
    return run(read_truth(path), METHODS[name], rack, seed, name)


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
            searches(method == "surrogate")  # simulated once, before processes fork
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
    print()
    print(ended_table(runs))
    print()
    print(confirmed_table([(rows[0].method, found) for rows, found in done if found]))


if __name__ == "__main__":
    main()
