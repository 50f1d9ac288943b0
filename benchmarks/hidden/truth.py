"""The true boundary of every configuration on a rack: the highest rate that holds the SLO, by bisection.

LoadGen's schedule at full length; a run holds when LoadGen's early stopping passes. The boundary is that of
one order of lengths, the same for all; those within NEAR_FRAC of the best get the median of ORDERS orders.

    python benchmarks/hidden/truth.py --set development --racks 0 1 2 3
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from hidden.racks import Rack, draw_rack
from hidden.space import CONFIGURATIONS, PRIOR, Configuration
from tune.probe.sequential import late_requests
from tune.results.early_stopping import late_allowed
from tune.sim.rack import simulate
from tune.spec.trial import TrialSpec

ORDERS, NEAR_FRAC = 5, 0.1
LOWEST_QPS, HIGHEST_QPS = 0.5, 60.0
TOLERANCE, NEAR_TOLERANCE = 1.008, 1.003
DATA = Path(__file__).parents[1] / "data" / "hidden_racks"
FIRST_SEED = {"development": 1000, "held-out": 5000}

Holds = Callable[[float], bool]


def holds(rack: Rack | None, spec: TrialSpec, qps: float, order: int) -> bool:
    """Whether a run at `qps` in the order of lengths `order` holds; None is the rack as the prior has it."""
    load = spec.load.model_copy(update={"target_qps": qps, "length_seed": order})
    asked = spec.model_copy(update={"load": load})
    log = simulate(rack.as_it_is(asked), rack.calibration(spec)) if rack else simulate(asked, PRIOR)
    return max(int(late.sum()) for late in late_requests(log, spec.slo)) <= late_allowed(len(log))


def boundary(passes: Holds, guess: float, tolerance: float, stride: float = 1.06) -> float:
    """The highest rate that `passes`, from `guess` on in strides that grow; 0 below LOWEST_QPS."""
    low, high = guess, guess
    if passes(guess):
        while high <= HIGHEST_QPS:
            low, high = high, high * stride
            stride *= stride**0.5
            if not passes(high):
                break
    else:
        while low >= LOWEST_QPS:
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


def boundaries(rack: Rack | None) -> list[float | None]:
    """One a configuration, None for those that crash."""
    crash = rack.crashes() if rack else frozenset()
    found: list[float | None] = []
    last: dict[tuple[int, ...], float] = {}
    guess = 12.0
    for index, one in enumerate(CONFIGURATIONS):
        if index in crash:
            found.append(None)
            continue
        guess = last.get(one.values[:3], guess)
        qps = boundary(lambda rate, one=one: holds(rack, one.spec, rate, 0), guess, TOLERANCE)  # type: ignore[misc]
        guess = last[one.values[:3]] = qps or 1.0
        found.append(qps)
    best = max(qps for qps in found if qps is not None)
    return [
        sharpened(rack, one, qps) if qps is not None and qps >= (1 - NEAR_FRAC) * best else qps
        for one, qps in zip(CONFIGURATIONS, found, strict=True)
    ]


def sharpened(rack: Rack | None, one: Configuration, guess: float, orders: int = ORDERS) -> float:
    """The median over orders of lengths, near `guess`."""
    return median(
        boundary(lambda rate, order=order: holds(rack, one.spec, rate, order), guess, NEAR_TOLERANCE, 1.015)  # type: ignore[misc]
        for order in range(orders)
    )


def write(path: Path, found: list[float | None]) -> None:
    """A row a configuration; no rate where it crashes. Renamed into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["configuration", "boundary_qps"])
        for one, qps in zip(CONFIGURATIONS, found, strict=True):
            rows.writerow([one.label, "" if qps is None else f"{qps:.3f}"])
    part.replace(path)


def read(path: Path) -> list[float | None]:
    """What `write` wrote, in the order of CONFIGURATIONS; raises ValueError where it is of another space."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if [row["configuration"] for row in rows] != [one.label for one in CONFIGURATIONS]:
        raise ValueError(f"{path}: other configurations than hidden/space.py has; make it anew")
    return [float(row["boundary_qps"]) if row["boundary_qps"] else None for row in rows]


def path_of(name: str, number: int) -> Path:
    return DATA / name / f"{number:02}.csv"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=["prior", *FIRST_SEED], default="development")
    parser.add_argument("--racks", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    os.nice(10)
    for number in options.racks:
        began = time.perf_counter()
        rack = None if options.set == "prior" else draw_rack(FIRST_SEED[options.set] + number)
        found = boundaries(rack)
        write(path_of(options.set, number), found)
        best = max((qps or 0.0, one.label) for one, qps in zip(CONFIGURATIONS, found, strict=True))
        print(
            f"{options.set} {number}: {best[1]} {best[0]:.2f}, {time.perf_counter() - began:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
