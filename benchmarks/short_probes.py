"""Whether the lengths that a short probe happens to ask move what is believed after it.

    python benchmarks/short_probes.py [--configurations 6] [--orders 8] [--verdicts 20] [--processes 2]

Random configurations of pd_split on hidden racks, as in capacity.py. One short probe a configuration and
order of lengths, all orders of a configuration at one rate: the boundary that the forecast begins with. Of
ln(boundary that is forecast after the probe / true one), less the configuration's mean: its scatter between
orders, and how it goes with what the probe's lengths have more than the dataset's. `same` is the forecast as
it is, which simulates the probe's own lengths; `other` the same forecast, but simulating those of another
order. Then the verdicts of short probes at rates around the true boundary, beside those of the runs of full
length that they begin: with every request counted once, and weighed until each of STRATA strata of prompts
counts as it does in the dataset.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import numpy as np
from capacity import CALIBRATION, hidden_rack, most_late, random_trial, run, true_boundary_qps

from tune.probe.capacity import short_queries
from tune.probe.lengths import draw_lengths
from tune.probe.sequential import late_requests
from tune.results.early_stopping import late_allowed
from tune.results.requests import FloatArray, IntArray, RequestLog
from tune.sim.forecast import RackForecast
from tune.sim.rack import simulate
from tune.spec.cluster import Calibration
from tune.spec.load import Dataset
from tune.spec.trial import TrialSpec

STRATA = 10
ANOTHER = 1000
"""How far the order whose lengths are simulated instead lies from the probe's own."""

RATES = (0.9, 0.95, 0.98, 1.0, 1.02, 1.05, 1.1)
"""Over the true boundary, of the probes whose verdicts are compared."""

LENGTHS = ("mean prompt, %", "prompts > p90, points", "mean answer, %")


@dataclass(frozen=True, eq=False)
class Expected:
    """Boundaries over the true one, after a probe that has so much `more` than the dataset, by LENGTHS."""

    more: FloatArray
    same: float
    other: float


@dataclass(frozen=True)
class Verdict:
    """Of a run at `rate` times the true boundary: late requests over those forgiven, of the whole run, of its
    short probe, and of that with strata weighed. Up to 1 it held."""

    rate: float
    full: float
    plain: float
    weighed: float


@dataclass(frozen=True)
class Found:
    """Of one configuration."""

    label: str
    expected: list[Expected]
    verdicts: list[Verdict]


@cache
def dataset_lengths(dataset: Dataset) -> tuple[IntArray, IntArray]:
    return draw_lengths(dataset, dataset.samples, True, 0)


def probe(spec: TrialSpec, rack: Calibration, qps: float, order: int) -> RequestLog:
    load = spec.load.model_copy(update={"target_qps": qps, "length_seed": order})
    first = load.first(short_queries(spec.load.expected_queries))
    return simulate(spec.model_copy(update={"load": first}), rack)


def more_than_dataset(log: RequestLog, dataset: Dataset) -> FloatArray:
    """By LENGTHS."""
    prompts, answers = dataset_lengths(dataset)
    long = np.quantile(prompts, 0.9)
    found = (
        log.input_tokens.mean() / prompts.mean() - 1,
        (log.input_tokens > long).mean() - (prompts > long).mean(),
        log.output_tokens.mean() / answers.mean() - 1,
    )
    return 100 * np.array(found)


def forecast_qps(spec: TrialSpec, log: RequestLog, qps: float, order: int) -> float:
    """After `log`, taken for a probe in the order of lengths `order`."""
    load = spec.load.model_copy(update={"length_seed": order})
    forecast = RackForecast(spec.model_copy(update={"load": load}), CALIBRATION)
    forecast.learn(qps, log, full=False)
    return forecast.boundary_qps()


def expected(spec: TrialSpec, rack: Calibration, true_qps: float, qps: float, order: int) -> Expected:
    log = probe(spec, rack, qps, order)
    same, other = (forecast_qps(spec, log, qps, of) / true_qps for of in (order, order + ANOTHER))
    return Expected(more_than_dataset(log, spec.load.dataset), same, other)


def weighed_late(log: RequestLog, spec: TrialSpec) -> float:
    """Late requests, each weighed by its stratum's share of the dataset over that of the probe."""
    prompts, _ = dataset_lengths(spec.load.dataset)
    edges = np.quantile(prompts, np.arange(1, STRATA) / STRATA)
    shares = np.bincount(np.searchsorted(edges, prompts), minlength=STRATA) / len(prompts)
    stratum = np.searchsorted(edges, log.input_tokens)
    counts = np.bincount(stratum, minlength=STRATA)
    weights = (shares * len(log) / np.maximum(counts, 1))[stratum]
    return max(float(weights @ late) for late in late_requests(log, spec.slo))


def verdict(spec: TrialSpec, rack: Calibration, true_qps: float, rate: float, order: int) -> Verdict:
    full, short = (make(spec, rack, true_qps * rate, order) for make in (run, probe))
    forgiven = late_allowed(len(short))
    plain, weighed = most_late(short, spec) / forgiven, weighed_late(short, spec) / forgiven
    return Verdict(rate, most_late(full, spec) / late_allowed(len(full)), plain, weighed)


def look(task: tuple[TrialSpec, Calibration, int, int]) -> Found:
    spec, rack, orders, verdicts = task
    true_qps, qps = true_boundary_qps(spec, rack), RackForecast(spec, CALIBRATION).boundary_qps()
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
    more = centred([[one.more for one in each.expected] for each in found])
    errors = {
        name: [[100 * float(np.log(getattr(one, name))) for one in each.expected] for each in found]
        for name in ("same", "other")
    }
    off = {name: centred(groups) for name, groups in errors.items()}
    lines = [f"{'':>24} {'sd':>6}   same: corr.  slope %  other: corr.  slope %"]
    for label, lengths in zip(LENGTHS, more.T, strict=True):
        fits = [
            (correlation(lengths, values), lengths @ values / (lengths @ lengths)) for values in off.values()
        ]
        told = "".join(f" {corr:+14.2f} {slope:+8.2f}" for corr, slope in fits)
        lines.append(f"{label:>24} {lengths.std():6.2f}{told}")
    for name, groups in errors.items():
        scatter = ", ".join(f"{np.std(group):.1f}" for group in groups)
        means = ", ".join(f"{np.mean(group):+.1f}" for group in groups)
        lines.append(f"{name}: sd between orders {off[name].std():.2f} % ({scatter}); mean off, %, {means}")
    return lines


def told_of_verdicts(found: Sequence[Found]) -> Sequence[str]:
    every = [one for each in found for one in each.verdicts]
    groups = [(each, rate) for each in found for rate in RATES]
    late = [
        centred([[getattr(one, name) for one in each.verdicts if one.rate == rate] for each, rate in groups])
        for name in ("full", "plain", "weighed")
    ]
    plain, weighed = (correlation(late[0], short) for short in late[1:])
    return [
        f"{'rate / true':>11} {'held':>5} {'agree':>7} {'weighed':>8}  changed, to what the full run said",
        *(_agreement(f"{rate:11g}", [one for one in every if one.rate == rate]) for rate in RATES),
        _agreement(f"{'all':>11}", every),
        f"late requests of probe and full run between orders: correlation {plain:.2f}, weighed {weighed:.2f}",
    ]


def _agreement(label: str, verdicts: Sequence[Verdict]) -> str:
    full, plain, weighed = (
        np.array([getattr(one, name) for one in verdicts]) <= 1 for name in ("full", "plain", "weighed")
    )
    changed = plain != weighed
    return (
        f"{label} {full.mean():5.0%} {(plain == full).mean():7.1%} {(weighed == full).mean():8.1%}  "
        f"{changed.sum()} of {len(full)}, {(changed & (weighed == full)).sum()}"
    )


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
    print("\n".join((*told_of_forecasts(found), *told_of_verdicts(found))))


if __name__ == "__main__":
    main()
