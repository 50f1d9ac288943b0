"""Measure the regret of a search against an exhaustive grid of its space, on the simulator.

    python benchmarks/search_regret.py [--seeds 5] [--trials 120] [--searches tpe random]

The grid walks every combination of the sweep's discrete dimensions and, for each, climbs the request rate in
steps of 0.1 from the best rate known so far until it has missed the SLO three times in a row. Lower rates are
skipped because tokens/s cannot exceed rate x tokens per answer: they cannot be the optimum. The searches run
as studies do (batches of study.parallel, observed in number order) with the baseline off. Regret at n is
1 - best feasible tokens/s/GPU of the first n trials / the grid's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from tune.analysis.judge import TrialFacts, judge
from tune.analysis.measure import measure
from tune.backends.simulated import simulate_attempt
from tune.config import compose_overrides
from tune.engines.check import check
from tune.records.folders import PROBE_FOLDER
from tune.records.outcome import Outcome
from tune.spec.bind import Point, bind_point
from tune.spec.findings import only_errors
from tune.spec.space import FloatDimension, IntDimension
from tune.study.optuna_proposer import OptunaProposer

SETTINGS = compose_overrides(["+sweep=pd_split"]).settings
SWEEP = SETTINGS.sweep
CHECKPOINTS = (20, 40, 60, 120)
QPS_STEP = 0.1
MISSES_THAT_END_A_CLIMB = 3


def evaluate(point: Point) -> Outcome:
    """Return the outcome of `point`, through the logs, the parser and the judge of a study."""
    spec = bind_point(SETTINGS.trial_spec, SWEEP, point)
    assert not only_errors(check(spec)), point
    with tempfile.TemporaryDirectory() as folder:
        simulate_attempt(spec, SETTINGS.cluster.calibration, Path(folder), lambda _activity: None)
        probe = measure(Path(folder) / PROBE_FOLDER, spec, PROBE_FOLDER)
    return judge(spec, [probe], TrialFacts(0, "benchmark", provenance={"params": dict(point)}))


def climb(discrete: dict, start_qps: float) -> tuple[float, dict | None]:
    """Return the best feasible (tokens/s/GPU, point) of a combination above `start_qps`, or (0, None)."""
    best, misses = (0.0, None), 0
    top = SWEEP.space["target_qps"].high
    qps = start_qps
    while misses < MISSES_THAT_END_A_CLIMB and qps <= top:
        point = discrete | {"target_qps": round(qps, 6)}
        outcome = evaluate(point)
        if outcome.feasible and outcome.output_tps_per_gpu > best[0]:
            best, misses = (outcome.output_tps_per_gpu, point), 0
        else:
            misses += 1
        qps += QPS_STEP
    return best


def combinations() -> Iterator[dict]:
    """Yield every combination of the discrete dimensions."""
    axes = {}
    for name, dimension in SWEEP.space.items():
        match dimension:
            case IntDimension():
                axes[name] = range(dimension.low, dimension.high + 1, dimension.step)
            case FloatDimension():
                continue
            case _:
                axes[name] = dimension.values
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def exhaustive(pool: ProcessPoolExecutor) -> tuple[float, dict]:
    """Return the optimum of the grid. Combinations near the reference go first: the bound is tight early."""
    best = (0.0, None)
    ordered = sorted(combinations(), key=lambda c: abs(c["prefill_workers"] - 14))
    width = 8 * pool._max_workers
    for start in range(0, len(ordered), width):
        chunk = ordered[start : start + width]
        floor = best[1]["target_qps"] if best[1] else 10.0
        for candidate in pool.map(climb, chunk, itertools.repeat(floor)):
            best = max(best, candidate, key=lambda f: f[0])
    return best


def search(name: str, seed: int, trials: int, pool: ProcessPoolExecutor) -> list[float]:
    """Return the best feasible tokens/s/GPU after each trial."""
    proposer = OptunaProposer(SWEEP.space, SETTINGS.search.model_copy(update={"name": name}), seed)
    best, curve = 0.0, []
    for start in range(0, trials, SETTINGS.parallel):
        numbers = range(start, min(start + SETTINGS.parallel, trials))
        points = [proposer.suggest(number).point for number in numbers]
        for number, outcome in zip(numbers, pool.map(evaluate, points), strict=True):
            proposer.observe(number, outcome)
            best = max(best, outcome.output_tps_per_gpu if outcome.feasible else 0.0)
            curve.append(best)
    return curve


def main() -> None:
    """Run the grid and the searches that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--searches", nargs="+", default=["tpe", "random"])
    parser.add_argument("--optimum", type=float, help="tokens/s/GPU of the grid, to skip walking it again")
    options = parser.parse_args()
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        optimum, point = (options.optimum, None) if options.optimum else exhaustive(pool)
        print(f"{datetime.now(UTC):%Y-%m-%d}  grid optimum {optimum:.2f} tokens/s/GPU  {json.dumps(point)}")
        checkpoints = [n for n in CHECKPOINTS if n <= options.trials]
        print(f"{'search':8} {'n':>4} {'median':>8}   regret of each seed")
        for name in options.searches:
            curves = [search(name, seed, options.trials, pool) for seed in range(options.seeds)]
            for n in checkpoints:
                regrets = [1 - curve[n - 1] / optimum for curve in curves]
                each = "  ".join(f"{regret:6.1%}" for regret in regrets)
                print(f"{name:8} {n:>4} {median(regrets):>8.1%}   {each}", flush=True)


if __name__ == "__main__":
    main()
