"""Measure how often a full run at the guaranteed rate holds, on racks with hidden parameters.

    python benchmarks/guaranteed_rates.py [--set own|held_out] [--racks 8] [--noise 0.01] [--processes 2]

A confirmation measures CONFIGURATIONS_PER_RACK configurations of a rack, of different split or parallelism,
on REPEATS deployments each, with load.mode=capacity. Steps of a deployment take longer or shorter by a factor
whose logarithm has the standard deviation `noise`; each has a shuffle of its own. Then FRESH_RUNS full runs
are simulated at every guaranteed rate, each on a new deployment and in a new shuffle, and judged by
LoadGen's early stopping. A line holds one configuration; the last lines state the share that held, of the
best of each rack and of all.

The racks of the set "own" are drawn by seeds that are in no set. The configurations of the highest true
capacity are taken, of an own rack among the PRIOR_PICKS that the prior predicts to be the best.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice

import numpy as np
from capacity import SimulatedDeployment
from synthetic_racks.capacity_tables import read_prior, read_set
from synthetic_racks.racks import Rack, draw_rack
from synthetic_racks.space import CONFIGURATIONS, PRIOR, Configuration
from synthetic_racks.true_capacities import find_capacity, holds

from tune.analysis.repeated_capacities import ShuffleNoise, mean_of, pooled
from tune.analysis.slo import slo_holds
from tune.capacity.search import CapacityResult, search_capacity
from tune.capacity.shuffle_noise import shuffle_noise
from tune.capacity.simulator_forecast import SimulatorForecast
from tune.records.requests import RequestLog
from tune.sim.simulator import simulate_serving
from tune.spec.trial import TrialSpec

CONFIGURATIONS_PER_RACK, REPEATS, FRESH_RUNS = 2, 3, 50
CONFIDENCE = 0.95
FIRST_OWN_SEED, FRESH_SHUFFLE = 20_000, 10_000
MIN_QPS, PRIOR_PICKS = 1.0, 12


@dataclass(frozen=True)
class Confirmed:
    """Hold one configuration: ln of the capacity of each repeat, its margin, and which fresh runs held."""

    rack: int
    label: str
    log_capacities: tuple[float, ...]
    verified_qps: float
    shuffles: ShuffleNoise
    margin: float
    held: float
    is_best: bool

    def line(self) -> str:
        """Render the configuration as a line of the table."""
        sd = float(np.std(self.log_capacities, ddof=1))
        return (
            f"{self.rack:6d} {self.label:>26} {np.exp(mean_of(self.log_capacities)):7.3f} {sd:6.2%} "
            f"{self.shuffles.sd:6.2%} {self.margin:6.2%} {self.held:5.0%}{'  best' if self.is_best else ''}"
        )


def chosen(name: str, number: int) -> tuple[Rack, list[Configuration]]:
    """Return a rack and the best configurations of different split and parallelism."""
    if name == "own":
        rack = draw_rack(FIRST_OWN_SEED + number)
        capacities = rough_capacities(rack)
    else:
        racks = read_set(name)
        rack, capacities = draw_rack(racks.summaries[number].seed), racks.capacities[number].capacity_qps
    crashing = rack.crashes()
    order = sorted(
        (index for index in range(len(CONFIGURATIONS)) if index not in crashing),
        key=lambda index: -(capacities[index] or 0.0),
    )
    kinds: dict[tuple[int, ...], Configuration] = {}
    for index in order:
        kinds.setdefault(CONFIGURATIONS[index].values[:3], CONFIGURATIONS[index])
    return rack, list(islice(kinds.values(), CONFIGURATIONS_PER_RACK))


def rough_capacities(rack: Rack) -> list[float]:
    """Return the capacities of the PRIOR_PICKS kinds that the prior ranks first, to 3 %; 0 of the others."""
    predicted = read_prior()
    found, kinds = [0.0] * len(CONFIGURATIONS), set()
    for index in sorted(range(len(CONFIGURATIONS)), key=lambda index: -(predicted[index] or 0.0)):
        each = CONFIGURATIONS[index]
        if len(kinds) < PRIOR_PICKS and each.values[:3] not in kinds:
            kinds.add(each.values[:3])
            found[index] = find_capacity(partial(holds, rack, each.spec), 12.0, 1.03)
    return found


def serve(rack: Rack, slowness: float, spec: TrialSpec) -> RequestLog:
    """Simulate a run on a deployment whose steps take `slowness` times as long."""
    calibration = rack.calibration(spec)
    scales = {name: getattr(calibration, name) * slowness for name in ("prefill_scale", "decode_scale")}
    return simulate_serving(rack.deployed(spec), calibration.model_copy(update=scales))


def with_shuffle(spec: TrialSpec, shuffle_seed: int, target_qps: float | None = None) -> TrialSpec:
    """Return `spec` in a shuffle, at a rate if one is given."""
    load = spec.load.at(target_qps) if target_qps else spec.load
    return spec.model_copy(update={"load": load.model_copy(update={"shuffle_seed": shuffle_seed})})


def repeats(
    rack: Rack, configuration: Configuration, noise: float, draws: np.random.Generator
) -> Iterator[tuple[CapacityResult, dict[str, float]]]:
    """Yield the result of a capacity search on each new deployment, and what its forecast fitted."""
    for repeat in range(1, REPEATS + 1):
        spec = with_shuffle(configuration.spec, 100 * repeat)
        served = partial(serve, rack, float(np.exp(draws.normal(0, noise))))
        forecast = SimulatorForecast(spec, PRIOR)
        *_, result = search_capacity(spec.load, forecast, SimulatedDeployment(spec, served).measure)
        assert isinstance(result, CapacityResult)
        yield result, forecast.fitted


def confirm_rack(task: tuple[str, int, float]) -> list[Confirmed]:
    """Confirm the configurations of one rack and run each at its guaranteed rate."""
    name, number, noise = task
    draws = np.random.default_rng([number, 7])
    rack, configurations = chosen(name, number)
    found = []
    for each in configurations:
        results = list(repeats(rack, each, noise, draws))
        if not all(result.capacity_qps >= MIN_QPS and result.verified_qps for result, _ in results):
            continue
        fitted = PRIOR.model_copy(update=results[0][1])
        spec = with_shuffle(each.spec, 100)
        found.append((each, results, shuffle_noise(spec, fitted, results[0][0].capacity_qps)))
    logs = [tuple(float(np.log(result.capacity_qps)) for result, _ in results) for _, results, _ in found]
    variance = pooled(logs)
    if variance is None:
        return []
    best = max(range(len(found)), key=lambda index: mean_of(logs[index]))
    confirmed = []
    for index, (each, results, shuffles) in enumerate(found):
        margin = variance.next_run_margin(CONFIDENCE, REPEATS, len(found), shuffles)
        verified_qps = max(result.verified_qps or 0.0 for result, _ in results)
        rate = min(float(np.exp(mean_of(logs[index]) - margin)), verified_qps)
        runs = (
            serve(
                rack,
                float(np.exp(draws.normal(0, noise))),
                with_shuffle(each.spec, FRESH_SHUFFLE + run, rate),
            )
            for run in range(FRESH_RUNS)
        )
        held = float(np.mean([slo_holds(log, each.spec.slo) for log in runs]))
        confirmed.append(
            Confirmed(number, each.label, logs[index], verified_qps, shuffles, margin, held, index == best)
        )
    return confirmed


def main() -> None:
    """Confirm the racks that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=["own", "held_out"], default="own")
    parser.add_argument("--racks", type=int, default=8)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--noise", type=float, default=0.01)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    tasks = [
        (options.set, number, options.noise) for number in range(options.first, options.first + options.racks)
    ]
    print(f"{datetime.now(UTC):%Y-%m-%d}  set {options.set}, noise {options.noise:.1%}, rates in queries/s")
    print(f"{'rack':>6} {'configuration':>26} {'mean':>7} {'sd':>6} {'shuf.':>6} {'margin':>6} {'held':>5}")
    everything: list[Confirmed] = []
    with ProcessPoolExecutor(options.processes) as pool:
        for confirmed in pool.map(confirm_rack, tasks):
            everything += confirmed
            print("\n".join(each.line() for each in confirmed), flush=True)
    for text, some in (("best", [c for c in everything if c.is_best]), ("all", everything)):
        held = [each.held for each in some]
        error = np.std(held, ddof=1) / len(held) ** 0.5
        print(f"{text}: {len(held)} rates, {np.mean(held):.1%} of fresh runs held (± {error:.1%})")


if __name__ == "__main__":
    main()
