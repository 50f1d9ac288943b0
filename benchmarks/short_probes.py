"""What a short probe happens to ask, and what that moves.

    python benchmarks/short_probes.py [--configurations 6] [--orders 8] [--verdicts 20] [--processes 2]

A short probe asks one prompt of each stratum of lengths. How far its mean lengths stray from the dataset's
between orders, beside those of as many requests that a run of full length begins with. Then, of random
configurations of pd_split on hidden racks, as in capacity.py: one short probe a configuration and order of
lengths, all orders of a configuration at one rate, the boundary that the forecast begins with. Of
ln(boundary that is forecast after the probe / true one), the scatter between orders: `same` is the forecast
as it is, which simulates the probe's own lengths; `other` the same forecast, but simulating those of another
order. Last the verdicts of short probes at rates around the true boundary, and of the beginnings of the runs
of full length, beside those of whole runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from capacity import CALIBRATION, hidden_rack, most_late, random_trial, run, true_boundary_qps

from tune.capacity.search import short_run_queries
from tune.capacity.simulator_forecast import SimulatorForecast
from tune.core.arrays import FloatArray, IntArray
from tune.loadgen.early_stopping import late_allowed
from tune.records.requests import RequestLog, first_requests
from tune.sim.simulator import simulate
from tune.spec.cluster import Calibration
from tune.spec.load import Load
from tune.spec.trial import TrialSpec
from tune.workload.lengths import draw_lengths

ANOTHER = 1000
"""How far the order whose lengths are simulated instead lies from the probe's own."""

RATES = (0.9, 0.95, 0.98, 1.0, 1.02, 1.05, 1.1)
"""Over the true boundary, of the probes whose verdicts are compared."""

LENGTHS = ("mean prompt, %", "prompts > p90, points", "mean answer, %")


@dataclass(frozen=True)
class Expected:
    """Boundaries over the true one, after a probe."""

    same: float
    other: float


@dataclass(frozen=True)
class Verdict:
    """Of a run at `rate` times the true boundary: late requests over those forgiven, of the whole run, of a
    short probe, and of the run's beginning. Up to 1 it held."""

    rate: float
    full: float
    strata: float
    beginning: float


@dataclass(frozen=True)
class Found:
    """Of one configuration."""

    label: str
    expected: list[Expected]
    verdicts: list[Verdict]


def probe(spec: TrialSpec, rack: Calibration, qps: float, order: int) -> RequestLog:
    load = spec.load.model_copy(update={"target_qps": qps, "shuffle_seed": order})
    short = load.sample(short_run_queries(spec.load.expected_queries))
    return simulate(spec.model_copy(update={"load": short}), rack)


def told_of_lengths(load: Load, orders: int = 1000) -> Sequence[str]:
    """By LENGTHS: how far a probe by strata strays from the dataset (sd), and a beginning of a run."""
    queries, samples = short_run_queries(load.expected_queries), load.dataset.samples
    strata, beginnings = [], []
    for order in range(orders):
        whole = draw_lengths(load.dataset, samples, True, order)
        long = float(np.quantile(whole[0], 0.9))
        short = draw_lengths(load.dataset, queries, False, order, stratified=True)
        strata.append(more(short, whole, long))
        beginnings.append(more((whole[0][:queries], whole[1][:queries]), whole, long))
    table = zip(LENGTHS, np.std(strata, axis=0), np.std(beginnings, axis=0), strict=True)
    return [
        f"{'sd between orders':>22} {'strata':>8} {'beginning':>10}",
        *(f"{label:>22} {one:8.2f} {other:10.2f}" for label, one, other in table),
    ]


def more(
    lengths: tuple[IntArray, IntArray], whole: tuple[IntArray, IntArray], long: float
) -> tuple[float, ...]:
    """By LENGTHS, what `lengths` have more than `whole`."""
    prompts, answers = (
        100 * (some.mean() / every.mean() - 1) for some, every in zip(lengths, whole, strict=True)
    )
    return prompts, 100 * ((lengths[0] > long).mean() - (whole[0] > long).mean()), answers


def forecast_qps(spec: TrialSpec, log: RequestLog, qps: float, order: int) -> float:
    """After `log`, taken for a probe in the order of lengths `order`."""
    load = spec.load.model_copy(update={"shuffle_seed": order})
    forecast = SimulatorForecast(spec.model_copy(update={"load": load}), CALIBRATION)
    forecast.learn(qps, log, full=False)
    return forecast.capacity_qps()


def expected(spec: TrialSpec, rack: Calibration, true_qps: float, qps: float, order: int) -> Expected:
    log = probe(spec, rack, qps, order)
    return Expected(*(forecast_qps(spec, log, qps, of) / true_qps for of in (order, order + ANOTHER)))


def verdict(spec: TrialSpec, rack: Calibration, true_qps: float, rate: float, order: int) -> Verdict:
    full, short = (make(spec, rack, true_qps * rate, order) for make in (run, probe))
    logs = (full, short, first_requests(full, len(short)))
    return Verdict(rate, *(most_late(log, spec) / late_allowed(len(log)) for log in logs))


def look(task: tuple[TrialSpec, Calibration, int, int]) -> Found:
    spec, rack, orders, verdicts = task
    true_qps, qps = true_boundary_qps(spec, rack), SimulatorForecast(spec, CALIBRATION).capacity_qps()
    return Found(
        f"{spec.split.label} {spec.prefill.max_num_tokens} {spec.decode.max_batch_size}",
        [expected(spec, rack, true_qps, qps, order) for order in range(orders)],
        [verdict(spec, rack, true_qps, rate, order) for order in range(verdicts) for rate in RATES],
    )


def centred(groups: Sequence[Sequence[FloatArray | float]]) -> FloatArray:
    """All values, (n,) or (n, k), less the mean of their group."""
    return np.concatenate([np.array(group) - np.mean(group, axis=0) for group in groups])


def correlation(one: FloatArray, other: FloatArray) -> float:
    """Of centred values; NaN where one of them never varies."""
    product = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / product if product else float("nan")


def told_of_forecasts(found: Sequence[Found]) -> Sequence[str]:
    lines = []
    for name in ("same", "other"):
        off = [[100 * float(np.log(getattr(one, name))) for one in each.expected] for each in found]
        scatter = ", ".join(f"{np.std(group):.1f}" for group in off)
        means = ", ".join(f"{np.mean(group):+.1f}" for group in off)
        lines.append(
            f"{name}: sd between orders {centred(off).std():.2f} % ({scatter}); mean off, %, {means}"
        )
    return lines


def told_of_verdicts(found: Sequence[Found]) -> Sequence[str]:
    every = [one for each in found for one in each.verdicts]
    groups = [(each, rate) for each in found for rate in RATES]
    late = [
        centred([[getattr(one, name) for one in each.verdicts if one.rate == rate] for each, rate in groups])
        for name in ("full", "strata", "beginning")
    ]
    strata, beginning = (correlation(late[0], short) for short in late[1:])
    return [
        f"{'rate / true':>11} {'held':>5} {'strata':>7} {'beginning':>10}  agree with the run of full length",
        *(_agreement(f"{rate:11g}", [one for one in every if one.rate == rate]) for rate in RATES),
        _agreement(f"{'all':>11}", every),
        f"late requests beside those of the full run between orders: correlation {strata:.2f}, of its "
        f"beginning {beginning:.2f}",
    ]


def _agreement(label: str, verdicts: Sequence[Verdict]) -> str:
    full, strata, beginning = (
        np.array([getattr(one, name) for one in verdicts]) <= 1 for name in ("full", "strata", "beginning")
    )
    agree = (strata == full).mean(), (beginning == full).mean()
    return f"{label} {full.mean():5.0%} {agree[0]:7.1%} {agree[1]:10.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configurations", type=int, default=6)
    parser.add_argument("--orders", type=int, default=8, help="of each configuration, for forecasts")
    parser.add_argument("--verdicts", type=int, default=20, help="orders of each configuration, for verdicts")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--draw", type=int, default=0, help="seed of configurations and hidden racks")
    options = parser.parse_args()
    draws = np.random.default_rng(options.draw)
    counts = (options.orders, options.verdicts)
    tasks = [(random_trial(draws), hidden_rack(draws), *counts) for _ in range(options.configurations)]
    with ProcessPoolExecutor(options.processes) as pool:
        found = list(pool.map(look, tasks))
    print(f"{datetime.now(UTC):%Y-%m-%d}  {'; '.join(each.label for each in found)}")
    lengths = told_of_lengths(tasks[0][0].load)
    print("\n".join((*lengths, *told_of_forecasts(found), *told_of_verdicts(found))))


if __name__ == "__main__":
    main()
