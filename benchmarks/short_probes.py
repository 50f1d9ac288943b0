"""Measure how far the lengths in a short probe stray, and what that does to forecasts and verdicts.

    python benchmarks/short_probes.py [--configurations 6] [--shuffles 8] [--verdicts 20] [--processes 2]

A short probe requests one prompt of each stratum of lengths. The first table shows how far its mean lengths
stray from those of the dataset between shuffles, beside those of as many requests at the beginning of a run
of full length. The second part takes random configurations of pd_split on racks with hidden parameters, as in
capacity.py, and runs one short probe a configuration and shuffle, all shuffles of a configuration at one
rate: the capacity that the forecast begins with. It shows the scatter between shuffles of the logarithm of
the capacity that is forecast after the probe over the true one: `same` is the forecast as it is, which
simulates the probe's own lengths; `other` simulates the lengths of another shuffle. The last table compares
verdicts of short probes at rates around the true capacity, and verdicts of the beginnings of full runs, with
those of the full runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from capacity import CALIBRATION, max_late, random_rack, random_trial, run, true_capacity_qps

from tune.capacity.search import short_run_queries
from tune.capacity.simulator_forecast import SimulatorForecast
from tune.core.arrays import FloatArray, IntArray
from tune.loadgen.early_stopping import late_allowed
from tune.records.requests import RequestLog, first_requests
from tune.sim.simulator import simulate_serving
from tune.spec.cluster import Calibration
from tune.spec.load import Load
from tune.spec.trial import TrialSpec
from tune.workload.lengths import draw_lengths

OTHER_SHUFFLE_STRIDE = 1000
"""Distance between the shuffle seed of a probe and the one that is simulated instead."""

RATES = (0.9, 0.95, 0.98, 1.0, 1.02, 1.05, 1.1)
"""Rates of the probes whose verdicts are compared, over the true capacity."""

LENGTHS = ("mean prompt, %", "prompts > p90, points", "mean answer, %")


@dataclass(frozen=True)
class Forecasts:
    """Hold forecasts of the capacity after a probe, over the true capacity."""

    same: float
    other: float


@dataclass(frozen=True)
class Verdict:
    """Hold late requests over those allowed, at `rate` times the true capacity; up to 1 the SLO held.

    They are those of the full run, of a short probe, and of the beginning of the full run.
    """

    rate: float
    full: float
    strata: float
    beginning: float


@dataclass(frozen=True)
class Measured:
    """Hold what was measured of one configuration."""

    label: str
    forecasts: list[Forecasts]
    verdicts: list[Verdict]


def probe(spec: TrialSpec, rack: Calibration, qps: float, shuffle: int) -> RequestLog:
    """Simulate a short probe."""
    load = spec.load.model_copy(update={"target_qps": qps, "shuffle_seed": shuffle})
    short = load.sample(short_run_queries(spec.load.expected_queries))
    return simulate_serving(spec.model_copy(update={"load": short}), rack)


def length_lines(load: Load, shuffles: int = 1000) -> Sequence[str]:
    """Render, by LENGTHS, the standard deviation of a stratified probe and of the beginning of a run."""
    queries, samples = short_run_queries(load.expected_queries), load.dataset.samples
    strata, beginnings = [], []
    for shuffle in range(shuffles):
        whole = draw_lengths(load.dataset, samples, True, shuffle)
        long = float(np.quantile(whole[0], 0.9))
        short = draw_lengths(load.dataset, queries, False, shuffle, stratified=True)
        strata.append(excess(short, whole, long))
        beginnings.append(excess((whole[0][:queries], whole[1][:queries]), whole, long))
    table = zip(LENGTHS, np.std(strata, axis=0), np.std(beginnings, axis=0), strict=True)
    return [
        f"{'sd between shuffles':>22} {'strata':>8} {'beginning':>10}",
        *(f"{label:>22} {short:8.2f} {beginning:10.2f}" for label, short, beginning in table),
    ]


def excess(
    lengths: tuple[IntArray, IntArray], whole: tuple[IntArray, IntArray], long: float
) -> tuple[float, ...]:
    """Return, by LENGTHS, what `lengths` have more than `whole`."""
    prompts, answers = (
        100 * (part.mean() / every.mean() - 1) for part, every in zip(lengths, whole, strict=True)
    )
    return prompts, 100 * ((lengths[0] > long).mean() - (whole[0] > long).mean()), answers


def forecast_qps(spec: TrialSpec, log: RequestLog, qps: float, shuffle: int) -> float:
    """Return the forecast capacity after `log`, taken for a probe of the shuffle `shuffle`."""
    load = spec.load.model_copy(update={"shuffle_seed": shuffle})
    forecast = SimulatorForecast(spec.model_copy(update={"load": load}), CALIBRATION)
    forecast.learn(qps, log, full=False)
    return forecast.capacity_qps()


def forecasts(spec: TrialSpec, rack: Calibration, true_qps: float, qps: float, shuffle: int) -> Forecasts:
    """Forecast the capacity after one short probe with its own and with other lengths."""
    log = probe(spec, rack, qps, shuffle)
    seeds = shuffle, shuffle + OTHER_SHUFFLE_STRIDE
    return Forecasts(*(forecast_qps(spec, log, qps, seed) / true_qps for seed in seeds))


def verdict(spec: TrialSpec, rack: Calibration, true_qps: float, rate: float, shuffle: int) -> Verdict:
    """Judge a full run, a short probe and the beginning of the full run at one rate."""
    full, short = (make(spec, rack, true_qps * rate, shuffle) for make in (run, probe))
    logs = (full, short, first_requests(full, len(short)))
    return Verdict(rate, *(max_late(log, spec) / late_allowed(len(log)) for log in logs))


def measure(task: tuple[TrialSpec, Calibration, int, int]) -> Measured:
    """Measure one configuration."""
    spec, rack, shuffles, verdicts = task
    true_qps, qps = true_capacity_qps(spec, rack), SimulatorForecast(spec, CALIBRATION).capacity_qps()
    return Measured(
        f"{spec.split.label} {spec.prefill.max_num_tokens} {spec.decode.max_batch_size}",
        [forecasts(spec, rack, true_qps, qps, shuffle) for shuffle in range(shuffles)],
        [verdict(spec, rack, true_qps, rate, shuffle) for shuffle in range(verdicts) for rate in RATES],
    )


def centred(groups: Sequence[Sequence[FloatArray | float]]) -> FloatArray:
    """Return all values, (n,) or (n, k), less the mean of their group."""
    return np.concatenate([np.array(group) - np.mean(group, axis=0) for group in groups])


def correlation(first: FloatArray, second: FloatArray) -> float:
    """Return the correlation of centred values; NaN where some never vary."""
    product = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / product if product else float("nan")


def forecast_lines(measured: Sequence[Measured]) -> Sequence[str]:
    """Render the scatter and the mean error of the forecasts."""
    lines = []
    for name in ("same", "other"):
        errors = [[100 * float(np.log(getattr(f, name))) for f in each.forecasts] for each in measured]
        scatter = ", ".join(f"{np.std(group):.1f}" for group in errors)
        means = ", ".join(f"{np.mean(group):+.1f}" for group in errors)
        lines.append(
            f"{name}: sd between shuffles {centred(errors).std():.2f} % ({scatter}); mean error, %, {means}"
        )
    return lines


def verdict_lines(measured: Sequence[Measured]) -> Sequence[str]:
    """Render how often verdicts agree with those of full runs."""
    every = [verdict for each in measured for verdict in each.verdicts]
    groups = [(each, rate) for each in measured for rate in RATES]
    late = [
        centred([[getattr(v, name) for v in each.verdicts if v.rate == rate] for each, rate in groups])
        for name in ("full", "strata", "beginning")
    ]
    strata, beginning = (correlation(late[0], short) for short in late[1:])
    return [
        f"{'rate / true':>11} {'held':>5} {'strata':>7} {'beginning':>10}  agree with the run of full length",
        *(
            _agreement(f"{rate:11g}", [verdict for verdict in every if verdict.rate == rate])
            for rate in RATES
        ),
        _agreement(f"{'all':>11}", every),
        f"late requests beside those of the full run between shuffles: correlation {strata:.2f}, of its "
        f"beginning {beginning:.2f}",
    ]


def _agreement(label: str, verdicts: Sequence[Verdict]) -> str:
    full, strata, beginning = (
        np.array([getattr(verdict, name) for verdict in verdicts]) <= 1
        for name in ("full", "strata", "beginning")
    )
    agree = (strata == full).mean(), (beginning == full).mean()
    return f"{label} {full.mean():5.0%} {agree[0]:7.1%} {agree[1]:10.1%}"


def main() -> None:
    """Measure the configurations that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configurations", type=int, default=6)
    parser.add_argument("--shuffles", type=int, default=8, help="of each configuration, for forecasts")
    parser.add_argument(
        "--verdicts", type=int, default=20, help="shuffles of each configuration, for verdicts"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--draw", type=int, default=0, help="seed of configurations and racks")
    options = parser.parse_args()
    draws = np.random.default_rng(options.draw)
    counts = (options.shuffles, options.verdicts)
    tasks = [(random_trial(draws), random_rack(draws), *counts) for _ in range(options.configurations)]
    with ProcessPoolExecutor(options.processes) as pool:
        measured = list(pool.map(measure, tasks))
    print(f"{datetime.now(UTC):%Y-%m-%d}  {'; '.join(each.label for each in measured)}")
    lengths = length_lines(tasks[0][0].load)
    print("\n".join((*lengths, *forecast_lines(measured), *verdict_lines(measured))))


if __name__ == "__main__":
    main()
