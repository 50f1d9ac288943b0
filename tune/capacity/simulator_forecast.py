"""Forecast a deployment's behaviour at any rate with the simulator, fitted to its probes.

The hardware is assumed to behave like the simulator with prefill steps, decode steps and time before prefill
each scaled by a factor, and possibly with one of a few hypotheses. Probe and simulation have equal arrivals
and lengths, so bursts, which decide a p99, are compared with themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from tune.analysis.slo import pooled_slo_holds, slo_holds
from tune.capacity.probe_statistics import STATISTIC_LOG_SD, log_statistics, used_limit_shares
from tune.capacity.search import FULL_RUN_MARGIN_FRAC
from tune.capacity.shuffle_majority import ShuffleMajority
from tune.capacity.simulator_fit import (
    FACTOR_LOG_SD,
    HYPOTHESIS_SWITCH_COST,
    HypothesisFit,
    best_fit,
    initial_fits,
    refined,
    scaled,
)
from tune.core.arrays import FloatArray
from tune.core.threads import map_ahead
from tune.loadgen.latencies import answered, latencies
from tune.records.capacity_search import ForecastPoint
from tune.records.requests import RequestLog, first_requests
from tune.sim.simulator import simulate_serving
from tune.spec.cluster import Calibration
from tune.spec.load import Load
from tune.spec.metrics import TPOT, TTFT
from tune.spec.split import ROLES, Role
from tune.spec.trial import TrialSpec

EXPECTED_LATE_FRAC = 0.93
"""Share of the late requests that LoadGen allows which a planned full run is expected to have."""

SHUFFLES = 25
"""Number of simulated shuffles that stand for all shuffles."""

FIRST_OTHER_SHUFFLE = 50
"""First shuffle seed of the simulated shuffles."""

_OTHER_SHUFFLES = range(FIRST_OTHER_SHUFFLE, FIRST_OTHER_SHUFFLE + SHUFFLES)

MIN_RATE_FRAC, MAX_RATE_FRAC = 1 / 32, 32.0
"""Lowest and highest rate that is considered, as a fraction of the trial's rate."""

MAX_POOL_CAPACITY_RATIO = 4.0
"""A pool capacity is searched up to this multiple of the capacity."""

_RATE_TOLERANCE, _BRACKET_FACTOR, _POOL_START_FRAC = 1.003, 1.25, 0.97
"""Ratio of rates at which a bisection ends, factor by which a bracket grows, and where the search for a pool
capacity starts as a fraction of the capacity."""

_CAPACITY_RANGE_FRACS = (0.93, 1.07)
"""The capacity under half of all shuffles is first searched between these fractions of that under the own
one."""

_MAX_PROBE_WEIGHT, _ROBUST_SCALE_SDS = 2.0, 3.0
"""Largest weight of a probe, and the difference in standard deviations from which residuals grow with the
logarithm of the difference."""

_RESIDUAL_RANGE_FRAC = 0.1
"""The rate residual of a full run is searched within this fraction of its rate."""


@dataclass(frozen=True, eq=False)
class _Probe:
    """Hold one probe: its rate, its number of requests, their statistics and shares of the limits."""

    target_qps: float
    queries: int
    full: bool
    statistics: FloatArray
    used_limit_shares: tuple[float, ...]


class SimulatorForecast:
    """Forecast the trial `spec` from `calibration` and the probes so far; implements Forecast.

    Independent simulations run in `threads` threads; no figure depends on their number.
    """

    def __init__(self, spec: TrialSpec, calibration: Calibration, threads: int = 1) -> None:
        self._spec, self._calibration, self._threads = spec, calibration, threads
        self._probes: list[_Probe] = []
        self._fits = initial_fits(calibration)
        self._cache: dict[str, float] = {}
        self._used: dict[float, dict[int, tuple[float, ...]]] = {}
        self._shares: dict[tuple[float, int], tuple[float, ...]] = {}

    def learn(self, target_qps: float, log: RequestLog, *, full: bool) -> None:
        """Fit the hypotheses to one more probe at `target_qps`; one without answers is ignored.

        `log` holds its requests from the first on, without gaps. `full` marks a run planned at full length,
        even if it was stopped. While the calibration's own hypothesis explains the probes so well that no
        other can be preferred, the others are not fitted.
        """
        times = latencies(log, answered(log))
        if not len(times[TTFT]) or not len(times[TPOT]):
            return
        shares = used_limit_shares(log, self._spec.slo)
        self._probes.append(_Probe(target_qps, len(log), full, log_statistics(log), shares))
        self._cache.clear()
        self._used.clear()
        self._shares.clear()
        own, *others = self._fits
        own = self._refined(own, self._threads)
        if own.cost > HYPOTHESIS_SWITCH_COST:
            others = list(map_ahead(self._refined, others, self._threads))
        self._fits = [own, *others]

    @property
    def fitted(self) -> dict[str, float]:
        """Return the fitted calibration parameters by name."""
        best = best_fit(self._fits)
        return scaled(self._calibration, best.log_factors) | best.hypothesis

    def full_run_qps(self) -> float:
        """Return the highest rate at which a full run should hold in its own shuffle.

        It is 0 if no rate from MIN_RATE_FRAC of the trial's rate on should hold. Where late requests hardly
        grow with the rate, as under a limit on the latency that long answers use up, a margin in late
        requests would be one of many percent in the rate; there the margin is FULL_RUN_MARGIN_FRAC.
        """
        if "full_run" not in self._cache:
            qps = self._simulated_qps()
            if qps and self._own_shuffle_holds(qps * (1 + FULL_RUN_MARGIN_FRAC)):
                highest_qps = self._near(self._own_shuffle_holds, qps)
                qps = max(qps, highest_qps * (1 - FULL_RUN_MARGIN_FRAC))
            self._cache["full_run"] = qps * self._rate_correction()
        return self._cache["full_run"]

    def capacity_qps(self) -> float:
        """Return the highest rate at which a full run should hold under half of all shuffles; 0 if none."""
        if "capacity" not in self._cache:
            qps = self._simulated_qps()
            half = ShuffleMajority(_OTHER_SHUFFLES, self._holds_shuffle, self._threads)
            highest = self._near(half.holds, qps) if qps else 0.0
            for rate, shuffles in half.asked.items():
                self._used[rate] = {shuffle: self._shares[rate, shuffle] for shuffle in shuffles}
            self._cache["capacity"] = highest * self._rate_correction()
        return self._cache["capacity"]

    def _refined(self, fit: HypothesisFit, threads: int = 1) -> HypothesisFit:
        """Return `fit` refined to all probes."""
        return refined(fit, partial(self._residual, fit.hypothesis), threads)

    def holds_pooled(self, qps: float) -> bool:
        """Return whether the requests of full runs under many shuffles, pooled, should hold the SLO."""
        simulated_qps = qps / self._rate_correction()
        logs = map_ahead(partial(self._simulate, simulated_qps), _OTHER_SHUFFLES, self._threads)
        return pooled_slo_holds(logs, self._spec.slo)

    def pool_capacity_qps(self, role: Role) -> float | None:
        """Return the capacity if the other pool never limited it; None where there is one pool.

        It is at most MAX_POOL_CAPACITY_RATIO times the capacity.
        """
        if role not in self._spec.split.roles:
            return None
        simulated_qps = self._simulated_qps()
        if not simulated_qps:
            return 0.0
        pools = dict(zip(ROLES, map_ahead(self._simulated_pool_qps, ROLES, self._threads), strict=True))
        capacity_qps = pools[role] / simulated_qps * self.capacity_qps()
        return capacity_qps if pools[role] == min(pools.values()) else capacity_qps / self._rate_correction()

    def curve(self) -> tuple[ForecastPoint, ...]:
        """Return what full runs should use of each limit at the rates that were simulated since the last fit.

        It costs no simulation. Rates are corrected by the full runs. Where the verdicts of some shuffles were
        known from other rates, the other shuffles are no sample of all, and the rate is left out.
        """
        correction, names = self._rate_correction(), [limit.name for limit, _ in self._spec.slo.limits]
        return tuple(
            ForecastPoint(
                target_qps=qps * correction,
                shuffles=len(by_shuffle),
                used={
                    name: (min(shares), float(np.median(shares)), max(shares))
                    for name, shares in zip(names, zip(*by_shuffle.values(), strict=True), strict=False)
                },
            )
            for qps, by_shuffle in sorted(self._used.items())
        )

    def log_rate_residual(self) -> float:
        """Return how the last full run compares with the forecast from all probes, as a log rate ratio."""
        full = [probe for probe in self._probes if probe.full]
        return self._log_residual(full[-1]) if full else 0.0

    def _simulated_pool_qps(self, role: Role) -> float:
        """Return the simulated capacity if the pool `role` alone limits it, in queries/s."""
        if role not in self._cache:
            qps = self._simulated_qps()
            low = high = qps * _POOL_START_FRAC
            while high < qps * MAX_POOL_CAPACITY_RATIO and self._holds_own(high, role):
                low, high = high, min(high * _BRACKET_FACTOR, qps * MAX_POOL_CAPACITY_RATIO)
            self._cache[role] = _bisect(lambda rate: self._holds_own(rate, role), low, high)
        return self._cache[role]

    def _simulated_qps(self) -> float:
        """Return the highest rate that holds in the own shuffle, without the correction by full runs."""
        if "simulated" not in self._cache:
            self._cache["simulated"] = self._search(self._holds_own)
        return self._cache["simulated"]

    def _search(self, holds: Callable[[float], bool]) -> float:
        """Return the highest rate that holds, from the last probe's rate on; 0 if none."""
        start = self._probes[-1].target_qps if self._probes else self._spec.load.offered_qps
        lowest, highest = (frac * self._spec.load.offered_qps for frac in (MIN_RATE_FRAC, MAX_RATE_FRAC))
        low, high = start, start * _BRACKET_FACTOR
        while not holds(low):
            low, high = low / _BRACKET_FACTOR, low
            if low < lowest:
                return 0.0
        while holds(high):
            low, high = high, high * _BRACKET_FACTOR
            if high > highest:
                return low
        return _bisect(holds, low, high)

    def _near(self, holds: Callable[[float], bool], qps: float) -> float:
        """Return the highest rate that holds, near `qps`, or beyond where it reaches an end of that range."""
        down, up = _CAPACITY_RANGE_FRACS
        low, high = qps * down, qps * up
        highest = _bisect(holds, low, high)
        while high / highest <= _RATE_TOLERANCE and high < MAX_RATE_FRAC * self._spec.load.offered_qps:
            low, high = highest, high * up
            highest = _bisect(holds, low, high)
        while highest == low and low > MIN_RATE_FRAC * self._spec.load.offered_qps and not holds(low):
            low, high = low * down, low
            highest = _bisect(holds, low, high)
        return highest

    def _own_shuffle_holds(self, qps: float) -> bool:
        """Return whether the simulated full run in the own shuffle holds."""
        return self._holds_shuffle(qps, self._spec.load.shuffle_seed)

    def _holds_own(self, qps: float, single_pool: Role | None = None) -> bool:
        """Return whether the simulated full run in the own shuffle holds, with late requests to spare."""
        seed = self._spec.load.shuffle_seed
        log = self._simulate(qps, seed, single_pool=single_pool)
        if single_pool is None:
            self._used[qps] = {seed: used_limit_shares(log, self._spec.slo)}
        return slo_holds(log, self._spec.slo, EXPECTED_LATE_FRAC)

    def _holds_shuffle(self, qps: float, shuffle_seed: int) -> bool:
        """Return whether the simulated full run holds in one shuffle; keep what it uses of each limit."""
        log = self._simulate(qps, shuffle_seed)
        self._shares[qps, shuffle_seed] = used_limit_shares(log, self._spec.slo)
        return slo_holds(log, self._spec.slo)

    def _rate_correction(self) -> float:
        """Return the factor on simulated rates that the full runs imply; those near a limit weigh most."""
        if "correction" not in self._cache:
            full = [probe for probe in self._probes if probe.full]
            logs = [self._log_residual(probe) for probe in full]
            weights = [1 / (0.01 + abs(np.log(max(probe.used_limit_shares)))) for probe in full]
            self._cache["correction"] = float(np.exp(np.average(logs, weights=weights))) if full else 1.0
        return self._cache["correction"]

    def _log_residual(self, probe: _Probe) -> float:
        """Return log of the probe's rate over the simulated rate with an equal share of the limit used."""
        target = max(probe.used_limit_shares)
        tightest = probe.used_limit_shares.index(target)

        def uses_less(qps: float) -> bool:
            """Return whether the simulated probe uses no larger share of the limit at `qps`."""
            shares = used_limit_shares(self._simulate_like(probe, qps), self._spec.slo)
            return shares[tightest] <= target

        low, high = (probe.target_qps * (1 + sign * _RESIDUAL_RANGE_FRAC) for sign in (-1, 1))
        return float(np.log(probe.target_qps / _bisect(uses_less, low, high)))

    def _residual(self, hypothesis: dict[str, float], log_factors: FloatArray) -> FloatArray:
        """Return in standard deviations the log factors, then each statistic of each probe.

        Residuals of statistics grow with the logarithm of large differences, so that outliers weigh less.
        """
        parameters = scaled(self._calibration, log_factors) | hypothesis
        parts = [log_factors / list(FACTOR_LOG_SD.values())]
        for probe in self._probes:
            log = self._simulate_like(probe, probe.target_qps, parameters)
            difference = (log_statistics(log) - probe.statistics) / STATISTIC_LOG_SD
            weight = min(float(np.sqrt(probe.queries / 1000)), _MAX_PROBE_WEIGHT)
            parts.append(weight * _ROBUST_SCALE_SDS * np.arcsinh(difference / _ROBUST_SCALE_SDS))
        return np.concatenate(parts)

    def _simulate_like(
        self, probe: _Probe, qps: float, parameters: Mapping[str, float] | None = None
    ) -> RequestLog:
        """Simulate `probe` at `qps`, with the best fit or with `parameters`."""
        seed = self._spec.load.shuffle_seed
        load = self._spec.load
        if probe.full:
            longer = load.model_copy(update={"min_queries": max(load.min_queries, probe.queries)})
            return first_requests(self._simulate(qps, seed, longer, parameters), probe.queries)
        return self._simulate(qps, seed, load.sample(probe.queries), parameters)

    def _simulate(
        self,
        qps: float,
        shuffle_seed: int,
        load: Load | None = None,
        parameters: Mapping[str, float] | None = None,
        single_pool: Role | None = None,
    ) -> RequestLog:
        """Simulate the full run, or `load`, at a rate and shuffle, with the best fit or `parameters`."""
        changes = {"target_qps": float(qps), "shuffle_seed": shuffle_seed}
        spec = self._spec.model_copy(update={"load": (load or self._spec.load).model_copy(update=changes)})
        calibration = self._calibration.model_copy(update=dict(parameters or self.fitted))
        return simulate_serving(spec, calibration, single_pool)


def _bisect(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return the highest rate that holds, to _RATE_TOLERANCE, where `low` holds and `high` does not."""
    while high / low > _RATE_TOLERANCE:
        middle = (low * high) ** 0.5
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
