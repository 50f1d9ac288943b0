"""Find the true capacity of every configuration on a rack: the highest rate that holds the SLO, by bisection.

LoadGen's schedule at full length; a run holds when LoadGen's early stopping passes. The capacity is that of
one shuffle, in which all configurations run, to FAR_TOLERANCE; a capacity within NEAR_FRAC of the best is the
median over SHUFFLES shuffles, to NEAR_TOLERANCE.

    python benchmarks/synthetic_racks/true_capacities.py --set development --racks 0 1 2 3 [--pools]

The capacity of each pool, with next to nothing to do for the other one, is found to POOL_TOLERANCE. Pools
that do not differ are simulated once, in the first configuration that has them. With --pools only these are
found anew, for racks already drawn.

A rack whose best configuration holds less than MIN_BEST_QPS is drawn again. So is, for every even number, a
rack where the prior's first pick or the seed's configuration reaches the best but for EASY_FRAC: in half of
the racks neither does. The summary of a rack names the seed that its number got.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from synthetic_racks.capacity_tables import (
    Summary,
    TrueCapacities,
    add_rack,
    read_prior,
    read_set,
    summarise,
)
from synthetic_racks.racks import Rack, draw_rack
from synthetic_racks.space import CONFIGURATIONS, PRIOR, Configuration
from tune.analysis.slo import late_requests
from tune.loadgen.early_stopping import late_allowed
from tune.sim.simulator import simulate_serving
from tune.spec.split import ROLES, Role
from tune.spec.trial import TrialSpec

SHUFFLES, NEAR_FRAC = 5, 0.1
CAPACITY_FLOOR_QPS, MAX_QPS = 0.5, 60.0
FAR_TOLERANCE, NEAR_TOLERANCE, POOL_TOLERANCE = 1.03, 1.003, 1.01
MIN_BEST_QPS = 6.0
REDRAW_STRIDE = 100
"""Distance between the seeds that one number may get."""
FIRST_SEED = {"development": 1000, "held_out": 8000}

Holds = Callable[[float], bool]


def holds(rack: Rack | None, spec: TrialSpec, qps: float, shuffle: int = 0, pool: Role | None = None) -> bool:
    """Return whether a run at `qps` holds; a `rack` of None is the rack that the prior predicts.

    `pool`: the only pool that has more than next to nothing to do.
    """
    load = spec.load.model_copy(update={"target_qps": qps, "shuffle_seed": shuffle})
    trial = spec.model_copy(update={"load": load})
    deployed = (rack.deployed(trial), rack.calibration(spec)) if rack else (trial, PRIOR)
    log = simulate_serving(*deployed, pool)
    return max(int(late.sum()) for late in late_requests(log, spec.slo)) <= late_allowed(len(log))


def find_capacity(passes: Holds, guess: float, tolerance: float, stride: float = 1.06) -> float:
    """Return the highest rate that `passes`; 0 below CAPACITY_FLOOR_QPS.

    Strides from `guess` grow until the rate is enclosed; bisection narrows it to a ratio of `tolerance`.
    """
    low, high = guess, guess
    if passes(guess):
        while high <= MAX_QPS:
            low, high = high, high * stride
            stride *= stride**0.5
            if not passes(high):
                break
    else:
        while low >= CAPACITY_FLOOR_QPS:
            low, high = low / stride, low
            stride *= stride**0.5
            if passes(low):
                break
        else:
            return 0.0
    while high / low > tolerance:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if passes(middle) else (low, middle)
    return (low * high) ** 0.5


def capacities_qps(rack: Rack | None) -> list[float | None]:
    """Return the capacity of every configuration, None for those that crash."""
    crashing = rack.crashes() if rack else frozenset()
    capacities: list[float | None] = []
    last: dict[tuple[int, ...], float] = {}
    guess = 12.0
    for index, each in enumerate(CONFIGURATIONS):
        if index in crashing:
            capacities.append(None)
            continue
        guess = last.get(each.values[:3], guess)
        qps = find_capacity(lambda rate, spec=each.spec: holds(rack, spec, rate), guess, FAR_TOLERANCE)  # type: ignore[misc]
        guess = last[each.values[:3]] = qps or 1.0
        capacities.append(qps)
    best = max(qps for qps in capacities if qps is not None)
    return [
        sharpened_qps(rack, each, qps) if qps is not None and qps >= (1 - NEAR_FRAC) * best else qps
        for each, qps in zip(CONFIGURATIONS, capacities, strict=True)
    ]


def sharpened_qps(rack: Rack | None, configuration: Configuration, guess: float) -> float:
    """Return the median capacity over SHUFFLES shuffles, found from `guess` on."""
    return median(
        find_capacity(
            lambda rate, shuffle=shuffle: holds(rack, configuration.spec, rate, shuffle),  # type: ignore[misc]
            guess,
            NEAR_TOLERANCE,
            1.015,
        )
        for shuffle in range(SHUFFLES)
    )


def pool_capacities_qps(rack: Rack | None) -> list[tuple[float, float]]:
    """Return the capacities of prefill and decode of every configuration, whether or not that crashes."""
    known: dict[tuple[Role, tuple[int, ...]], float] = {}
    for role in ROLES:
        guess = 12.0
        for each in CONFIGURATIONS:
            key = role, each.pools[role]
            if key not in known:
                guess = find_capacity(
                    lambda qps, spec=each.spec, role=role: holds(rack, spec, qps, pool=role),  # type: ignore[misc]
                    guess,
                    POOL_TOLERANCE,
                    1.1,
                )
                known[key], guess = guess, guess or 1.0
    prefill, decode = ([known[role, each.pools[role]] for each in CONFIGURATIONS] for role in ROLES)
    return list(zip(prefill, decode, strict=True))


def make_rack(name: str, number: int) -> Summary:
    """Draw the rack `number` of a set until it is one to search on; add its capacities to the set."""
    for seed in count(FIRST_SEED[name] + number, REDRAW_STRIDE):
        rack = draw_rack(seed)
        if not any(holds(rack, each.spec, MIN_BEST_QPS) for each in _likely_first(rack)):
            print(f"{name} {number}: drawn again, none holds {MIN_BEST_QPS:g}", flush=True)
            continue
        capacities = capacities_qps(rack)
        summary = summarise(number, seed, capacities)
        if summary.best_qps >= MIN_BEST_QPS and (number % 2 or not summary.is_easy):
            break
        print(f"{name} {number}: drawn again, {summary}", flush=True)
    add_rack(name, number, TrueCapacities(capacities, pool_capacities_qps(rack)), summary)
    return summary


def _likely_first(rack: Rack) -> list[Configuration]:
    """Return the configurations that do not crash, those of the highest predicted capacity first."""
    predicted, crashing = read_prior(), rack.crashes()
    order = sorted(range(len(predicted)), key=lambda index: -(predicted[index] or 0.0))
    return [CONFIGURATIONS[index] for index in order if index not in crashing]


def main() -> None:
    """Make the racks that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=["prior", *FIRST_SEED], default="development")
    parser.add_argument("--racks", type=int, nargs="+", default=[0])
    parser.add_argument("--pools", action="store_true", help="only the capacities of the pools")
    options = parser.parse_args()
    if options.set == "prior":
        add_rack("prior", 0, TrueCapacities(capacities_qps(None), pool_capacities_qps(None)), None)
        return
    for number in options.racks:
        began = time.perf_counter()
        if options.pools:
            racks = read_set(options.set)
            summary = racks.summaries[number]
            pools = pool_capacities_qps(draw_rack(summary.seed))
            known = racks.capacities[number].capacity_qps
            add_rack(options.set, number, TrueCapacities(known, pools), summary)
            print(f"{options.set} {number}: {time.perf_counter() - began:.0f} s", flush=True)
            continue
        print(f"{make_rack(options.set, number)}, {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
