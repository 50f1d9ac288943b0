"""The true boundary of every configuration on a rack: the highest rate that holds the SLO, by bisection.

LoadGen's schedule at full length; a run holds when LoadGen's early stopping passes. The boundary is that of
one order of lengths, the same for all, to FAR_TOLERANCE; those within NEAR_FRAC of the best get the median of
ORDERS orders, to NEAR_TOLERANCE.

    python benchmarks/hidden/truth.py --set development --racks 0 1 2 3 [--alone]

Beside it what each pool could do alone, to ALONE_TOLERANCE: of pools that differ in nothing else one, in the
first configuration that has it. With --alone that is all that is made anew, of racks already drawn.

A rack whose best configuration holds less than LEAST_BEST_QPS is drawn again. So is, for every even number,
one where the prior's first pick or the seed's configuration comes within EASY_FRAC of the best: in half of
the racks neither does. racks.csv says which seed a number came to.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from hidden.racks import Rack, draw_rack
from hidden.space import CONFIGURATIONS, PRIOR, SEED, Configuration
from tune.analysis.slo import late_requests
from tune.loadgen.early_stopping import late_allowed
from tune.sim.simulator import simulate
from tune.spec.split import ROLES, Role
from tune.spec.trial import TrialSpec

ORDERS, NEAR_FRAC = 5, 0.1
CAPACITY_FLOOR_QPS, HIGHEST_QPS = 0.5, 60.0
FAR_TOLERANCE, NEAR_TOLERANCE, ALONE_TOLERANCE = 1.03, 1.003, 1.01
LEAST_BEST_QPS, EASY_FRAC = 6.0, 0.05
REDRAWN = 100
"""Seeds of one number are so far apart."""
DATA = Path(__file__).parents[1] / "data" / "hidden_racks"
FIRST_SEED = {"development": 1000, "held-out": 8000}

Holds = Callable[[float], bool]


def holds(rack: Rack | None, spec: TrialSpec, qps: float, order: int = 0, alone: Role | None = None) -> bool:
    """Whether a run at `qps` in the order of lengths `order` holds; None is the rack as the prior has it.

    `alone`: with next to nothing to do for the other pool."""
    load = spec.load.model_copy(update={"target_qps": qps, "shuffle_seed": order})
    asked = spec.model_copy(update={"load": load})
    on_rack = (rack.as_it_is(asked), rack.calibration(spec)) if rack else (asked, PRIOR)
    log = simulate(*on_rack, alone)
    return max(int(late.sum()) for late in late_requests(log, spec.slo)) <= late_allowed(len(log))


def boundary(passes: Holds, guess: float, tolerance: float, stride: float = 1.06) -> float:
    """The highest rate that `passes`, from `guess` on in strides that grow; 0 below CAPACITY_FLOOR_QPS."""
    low, high = guess, guess
    if passes(guess):
        while high <= HIGHEST_QPS:
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
        qps = boundary(lambda rate, one=one: holds(rack, one.spec, rate, 0), guess, FAR_TOLERANCE)  # type: ignore[misc]
        guess = last[one.values[:3]] = qps or 1.0
        found.append(qps)
    best = max(qps for qps in found if qps is not None)
    return [
        sharpened(rack, one, qps) if qps is not None and qps >= (1 - NEAR_FRAC) * best else qps
        for one, qps in zip(CONFIGURATIONS, found, strict=True)
    ]


def sharpened(rack: Rack | None, one: Configuration, guess: float) -> float:
    """The median over orders of lengths, near `guess`."""
    return median(
        boundary(lambda rate, order=order: holds(rack, one.spec, rate, order), guess, NEAR_TOLERANCE, 1.015)  # type: ignore[misc]
        for order in range(ORDERS)
    )


class Truth(NamedTuple):
    """By configuration: its boundary, None where it crashes; what prefill and decode could do alone."""

    capacity_qps: Sequence[float | None]
    pool_capacity_qps: Sequence[tuple[float, float]]


def pool_capacity_qps(rack: Rack | None) -> list[tuple[float, float]]:
    """What prefill and decode could do alone, one a configuration, whether or not that crashes."""
    found: dict[tuple[Role, tuple[int, ...]], float] = {}
    for role in ROLES:
        guess = 12.0
        for one in CONFIGURATIONS:
            key = role, one.pools[role]
            if key not in found:
                guess = boundary(
                    lambda qps, one=one, role=role: holds(rack, one.spec, qps, alone=role),  # type: ignore[misc]
                    guess,
                    ALONE_TOLERANCE,
                    1.1,
                )
                found[key], guess = guess, guess or 1.0
    prefill, decode = ([found[role, one.pools[role]] for one in CONFIGURATIONS] for role in ROLES)
    return list(zip(prefill, decode, strict=True))


def write(path: Path, truth: Truth) -> None:
    """A row a configuration; no boundary where it crashes. Renamed into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["configuration", "capacity_qps", "prefill_capacity_qps", "decode_capacity_qps"])
        for one, qps, (prefill, decode) in zip(CONFIGURATIONS, *truth, strict=True):
            rows.writerow([one.label, "" if qps is None else f"{qps:.3f}", f"{prefill:.3f}", f"{decode:.3f}"])
    part.replace(path)


def read(path: Path) -> list[float | None]:
    """Boundaries that `write` wrote, in the order of CONFIGURATIONS. Raises ValueError for another space."""
    return [float(row["capacity_qps"]) if row["capacity_qps"] else None for row in _rows(path)]


def read_truth(path: Path) -> Truth:
    """The same with what prefill and decode could do alone."""
    alone = [(float(row["prefill_capacity_qps"]), float(row["decode_capacity_qps"])) for row in _rows(path)]
    return Truth(read(path), alone)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if [row["configuration"] for row in rows] != [one.label for one in CONFIGURATIONS]:
        raise ValueError(f"{path}: other configurations than hidden/space.py has; make it anew")
    return rows


def path_of(name: str, number: int) -> Path:
    return DATA / name / f"{number:02}.csv"


class Summary(NamedTuple):
    """A row of racks.csv. Shares are those of the best boundary, 0 where the configuration crashes."""

    number: int
    seed: int
    best: str
    best_qps: float
    prior_pick_frac: float
    seed_configuration_frac: float

    @property
    def is_easy(self) -> bool:
        return max(self.prior_pick_frac, self.seed_configuration_frac) >= 1 - EASY_FRAC


def summarise(number: int, seed: int, found: Sequence[float | None]) -> Summary:
    known = [qps or 0.0 for qps in found]
    best = int(np.argmax(known))
    pick = int(np.argmax([qps or 0.0 for qps in read(path_of("prior", 0))]))
    shares = (round(known[index] / known[best], 4) for index in (pick, SEED))
    return Summary(number, seed, CONFIGURATIONS[best].label, round(known[best], 3), *shares)


def read_racks(name: str) -> dict[int, Summary]:
    """By number, the racks of the set `name` whose boundaries are known."""
    path = DATA / name / "racks.csv"
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = (Summary(*(kind(cell) for kind, cell in zip(_KINDS, row, strict=True)))
                for row in list(csv.reader(file))[1:])  # fmt: skip
        return {row.number: row for row in rows}


_KINDS = (int, int, str, float, float, float)


def write_racks(name: str, racks: Mapping[int, Summary]) -> None:
    with (DATA / name / "racks.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(Summary._fields)
        rows.writerows(racks[number] for number in sorted(racks))


def find(name: str, number: int) -> Summary:
    """Draw the rack `number` until it is one to search on; write its boundaries and its row of racks.csv."""
    for seed in count(FIRST_SEED[name] + number, REDRAWN):
        rack = draw_rack(seed)
        if not any(holds(rack, one.spec, LEAST_BEST_QPS, 0) for one in _likely_first(rack)):
            print(f"{name} {number}: drawn again, none holds {LEAST_BEST_QPS:g}", flush=True)
            continue
        found = boundaries(rack)
        summary = summarise(number, seed, found)
        if summary.best_qps >= LEAST_BEST_QPS and (number % 2 or not summary.is_easy):
            break
        print(f"{name} {number}: drawn again, {summary}", flush=True)
    write(path_of(name, number), Truth(found, pool_capacity_qps(rack)))
    write_racks(name, read_racks(name) | {number: summary})
    return summary


def _likely_first(rack: Rack) -> list[Configuration]:
    """Those that do not crash, by the prior's boundaries, the highest first."""
    known, crash = read(path_of("prior", 0)), rack.crashes()
    order = sorted(range(len(known)), key=lambda index: -(known[index] or 0.0))
    return [CONFIGURATIONS[index] for index in order if index not in crash]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=["prior", *FIRST_SEED], default="development")
    parser.add_argument("--racks", type=int, nargs="+", default=[0])
    parser.add_argument("--alone", action="store_true", help="only what each pool could do alone")
    options = parser.parse_args()
    if options.set == "prior":
        write(path_of("prior", 0), Truth(boundaries(None), pool_capacity_qps(None)))
        return
    for number in options.racks:
        began = time.perf_counter()
        if options.alone:
            path = path_of(options.set, number)
            write(path, Truth(read(path), pool_capacity_qps(draw_rack(read_racks(options.set)[number].seed))))
            print(f"{options.set} {number}: {time.perf_counter() - began:.0f} s", flush=True)
            continue
        print(f"{find(options.set, number)}, {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
