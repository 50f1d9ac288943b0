"""What the simulated rack, fitted to the probes of one deployment, expects of it at other rates.

The rack under test is taken for the simulated one with its prefill steps, its decode steps and the time
before prefill each longer by a factor, and possibly one of a few hypotheses. Probe and simulation have the
same arrivals and lengths, so that bursts, which make a p99, compare with themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tune.analysis.slo import pooled_slo_holds, slo_holds, used_frac
from tune.capacity.futility import more_than_half
from tune.core.arrays import FloatArray
from tune.loadgen.latencies import answered, latencies
from tune.records.requests import RequestLog, first_requests
from tune.sim.simulator import simulate
from tune.spec.cluster import Calibration
from tune.spec.load import Load, Slo
from tune.spec.split import ROLES, Role
from tune.spec.trial import TrialSpec

FACTORS = {"prefill_scale": 0.15, "decode_scale": 0.15, "ttft_overhead_s": 1.0}
"""What is fitted by a factor, and the prior standard deviation of its ln. Our choice."""

SLOW_WORKER_SCALE = 1.14
"""Of the last decode worker, in the hypothesis that it is slow. It explains the TPOT of NVIDIA's MLPerf
Inference v5.1 run as well as the other hypothesis does."""

SLOW_HEAD_SCALE = 1.1
"""Of the workers beside the front end, in the hypothesis that it slows them. Our choice."""

STATISTIC_SD = np.array([0.04, 0.03, 0.03, 0.05, 0.10, 0.02, 0.02])
"""How far ln of each statistic of 1,000 requests may lie from the simulated one: mean, p10, p50, p90 and
p98 of TTFT, mean and p90 of TPOT. Our choice."""

OTHER_HYPOTHESIS_COST = 1.0
"""By how much another hypothesis must lower the sum of squares to be preferred to the calibration's own."""

EXPECTED_LATE_FRAC = 0.93
"""Share of the late requests that LoadGen forgives which a run to be confirmed is expected to have."""

SHUFFLES = 25
FIRST_OTHER_SHUFFLE = 50
LOWEST_FRAC, HIGHEST_FRAC = 1 / 32, 32.0
"""Of the rate of the trial: rates outside are not looked at."""

MAX_POOL_CAPACITY_RATIO = 4.0
"""Times the boundary; what a pool alone could do beyond it is not looked for."""

_TOLERANCE, _STRIDE, _LOWEST_ALONE = 1.003, 1.25, 0.97
_MOST_STEPS, _LONGEST_STEP, _NUDGE = 6, 0.15, 0.01
_HEAVIEST, _LOOSE_SD = 2.0, 3.0
_RIVAL_FRAC = 0.1


@dataclass(frozen=True, eq=False)
class _Shown:
    """What one probe showed: its rate, of how many requests from the first on, and their statistics."""

    target_qps: float
    queries: int
    full: bool
    statistics: FloatArray
    used: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class _Fit:
    hypothesis: dict[str, float]
    logs: FloatArray
    cost: float = 0.0


class SimulatorForecast:
    """A forecast for the trial `spec` that begins with `calibration` and learns from probes."""

    def __init__(self, spec: TrialSpec, calibration: Calibration) -> None:
        self._spec, self._calibration = spec, calibration
        self._shown: list[_Shown] = []
        self._fits = [_Fit(hypothesis, np.zeros(len(FACTORS))) for hypothesis in _hypotheses(calibration)]
        self._known: dict[str, float] = {}

    def learn(self, target_qps: float, log: RequestLog, *, full: bool) -> None:
        """Take in a probe at `target_qps`: `log` holds its requests from the first on, none left out.

        `full`: it was to be the run of full length, whether or not it came to its end.
        """
        times = latencies(log, answered(log))
        if not len(times.ttft_ns) or not len(times.tpot_ns):
            return
        shown = _Shown(target_qps, len(log), full, _statistics(log), _used(log, self._spec.slo))
        self._shown.append(shown)
        self._known.clear()
        self._fits = [self._fitted(fit) for fit in self._fits]

    @property
    def fitted(self) -> dict[str, float]:
        """What of the calibration is believed to be otherwise, by name."""
        best = self._best()
        return _scaled(self._calibration, best.logs) | best.hypothesis

    def full_run_qps(self) -> float:
        """As the protocol Forecast says; 0 where none from LOWEST_FRAC of the trial's rate on should hold."""
        if "confirmable" not in self._known:
            self._known["confirmable"] = self._own_qps() * self._faster()
        return self._known["confirmable"]

    def capacity_qps(self) -> float:
        """As the protocol Forecast says."""
        if "boundary" not in self._known:
            own_qps = self._own_qps()
            found = _highest(self._half_hold, own_qps * 0.93, own_qps * 1.07) if own_qps else 0.0
            self._known["boundary"] = found * self._faster()
        return self._known["boundary"]

    def holds_pooled(self, qps: float) -> bool:
        """As the protocol Forecast says."""
        faster = self._faster()
        logs = (self._run(qps / faster, FIRST_OTHER_SHUFFLE + order) for order in range(SHUFFLES))
        return pooled_slo_holds(logs, self._spec.slo)

    def pool_capacity_qps(self, role: Role) -> float:
        """As the protocol Forecast says, up to MAX_POOL_CAPACITY_RATIO times the boundary."""
        own_qps = self._own_qps()
        if not own_qps:
            return 0.0
        known = {one: self._own_alone_qps(one) for one in ROLES}
        pool_capacity_qps = known[role] / own_qps * self.capacity_qps()
        return pool_capacity_qps if known[role] == min(known.values()) else pool_capacity_qps / self._faster()

    def surprise(self) -> float:
        """As the protocol Forecast says."""
        full = [shown for shown in self._shown if shown.full]
        return self._log_faster(full[-1]) if full else 0.0

    def _own_alone_qps(self, role: Role) -> float:
        """What `_own_qps` would be were the other pool no limit."""
        if role not in self._known:
            own_qps = self._own_qps()
            low = high = own_qps * _LOWEST_ALONE
            while high < own_qps * MAX_POOL_CAPACITY_RATIO and self._own_holds(high, role):
                low, high = high, min(high * _STRIDE, own_qps * MAX_POOL_CAPACITY_RATIO)
            self._known[role] = _highest(lambda qps: self._own_holds(qps, role), low, high)
        return self._known[role]

    def _own_qps(self) -> float:
        """What `full_run_qps` is without the correction by runs of full length."""
        if "own" not in self._known:
            self._known["own"] = self._search(self._own_holds)
        return self._known["own"]

    def _search(self, holds: Callable[[float], bool]) -> float:
        start = self._shown[-1].target_qps if self._shown else self._spec.load.target_qps
        lowest, highest = (frac * self._spec.load.target_qps for frac in (LOWEST_FRAC, HIGHEST_FRAC))
        low, high = start, start * _STRIDE
        while not holds(low):
            low, high = low / _STRIDE, low
            if low < lowest:
                return 0.0
        while holds(high):
            low, high = high, high * _STRIDE
            if high > highest:
                return low
        return _highest(holds, low, high)

    def _own_holds(self, qps: float, alone: Role | None = None) -> bool:
        log = self._run(qps, self._spec.load.shuffle_seed, alone=alone)
        return slo_holds(log, self._spec.slo, EXPECTED_LATE_FRAC)

    def _half_hold(self, qps: float) -> bool:
        logs = (self._run(qps, FIRST_OTHER_SHUFFLE + order) for order in range(SHUFFLES))
        return more_than_half((slo_holds(log, self._spec.slo) for log in logs), SHUFFLES)

    def _faster(self) -> float:
        """The rack holds so many times the rate that the fit holds, by the p99 of runs of full length."""
        if "faster" not in self._known:
            full = [shown for shown in self._shown if shown.full]
            logs = [self._log_faster(shown) for shown in full]
            near = [1 / (0.01 + abs(np.log(max(s.used)))) for s in full]
            self._known["faster"] = float(np.exp(np.average(logs, weights=near))) if full else 1.0
        return self._known["faster"]

    def _log_faster(self, shown: _Shown) -> float:
        target = max(shown.used)
        tightest = shown.used.index(target)

        def less(qps: float) -> bool:
            used = _used(self._like(shown, qps), self._spec.slo)
            return used[tightest] <= target

        like = _highest(less, shown.target_qps * (1 - _RIVAL_FRAC), shown.target_qps * (1 + _RIVAL_FRAC))
        return float(np.log(shown.target_qps / like))

    def _best(self) -> _Fit:
        first, *others = self._fits
        return min([first, *others], key=lambda fit: fit.cost + OTHER_HYPOTHESIS_COST * (fit is not first))

    def _fitted(self, fit: _Fit) -> _Fit:
        """`fit` once more, by Gauss-Newton from where it was; differences count less the larger they are."""
        logs, misfit = fit.logs, self._misfit(fit.hypothesis, fit.logs)
        for _ in range(_MOST_STEPS):
            nudges = _NUDGE * np.eye(len(FACTORS))
            slope = np.stack(
                [(self._misfit(fit.hypothesis, logs + nudge) - misfit) / _NUDGE for nudge in nudges], 1
            )
            step = -np.linalg.lstsq(slope, misfit, rcond=None)[0]
            step = np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
            ahead = self._misfit(fit.hypothesis, logs + step)
            while ahead @ ahead >= misfit @ misfit and np.abs(step).max() > _NUDGE / 10:
                step /= 3
                ahead = self._misfit(fit.hypothesis, logs + step)
            if ahead @ ahead >= misfit @ misfit:
                break
            logs, misfit = logs + step, ahead
        return _Fit(fit.hypothesis, logs, float(misfit @ misfit))

    def _misfit(self, hypothesis: dict[str, float], logs: FloatArray) -> FloatArray:
        """In standard deviations: the factors from 1, then each statistic of each probe."""
        rack = _scaled(self._calibration, logs) | hypothesis
        parts = [logs / list(FACTORS.values())]
        for shown in self._shown:
            log = self._like(shown, shown.target_qps, rack)
            off = (_statistics(log) - shown.statistics) / STATISTIC_SD
            weight = min(float(np.sqrt(shown.queries / 1000)), _HEAVIEST)
            parts.append(weight * _LOOSE_SD * np.arcsinh(off / _LOOSE_SD))
        return np.concatenate(parts)

    def _like(self, shown: _Shown, qps: float, rack: Mapping[str, float] | None = None) -> RequestLog:
        """What `shown` would have shown at `qps`, on the best fit or on `rack`."""
        seed = self._spec.load.shuffle_seed
        load = self._spec.load
        if shown.full:
            longer = load.model_copy(update={"min_queries": max(load.min_queries, shown.queries)})
            return first_requests(self._run(qps, seed, longer, rack), shown.queries)
        return self._run(qps, seed, load.sample(shown.queries), rack)

    def _run(
        self,
        qps: float,
        shuffle_seed: int,
        load: Load | None = None,
        rack: Mapping[str, float] | None = None,
        alone: Role | None = None,
    ) -> RequestLog:
        """The run of full length, or of `load`, at another rate and in another order; on the best fit or on
        `rack`."""
        asked = {"target_qps": float(qps), "shuffle_seed": shuffle_seed}
        spec = self._spec.model_copy(update={"load": (load or self._spec.load).model_copy(update=asked)})
        return simulate(spec, self._calibration.model_copy(update=dict(rack or self.fitted)), alone)


def _hypotheses(calibration: Calibration) -> tuple[dict[str, float], ...]:
    """The calibration's own, then each other one that differs."""
    again = 0.0 if calibration.large_batch_weight_reads else 1.0
    others: list[dict[str, float]] = [{"large_batch_weight_reads": again}]
    if calibration.last_decode_worker_scale == 1:
        others.append({"last_decode_worker_scale": SLOW_WORKER_SCALE})
    if calibration.head_node_scale == 1:
        others.append({"head_node_scale": SLOW_HEAD_SCALE})
    return ({}, *others)


def _scaled(calibration: Calibration, logs: FloatArray) -> dict[str, float]:
    return {
        name: getattr(calibration, name) * float(np.exp(log)) for name, log in zip(FACTORS, logs, strict=True)
    }


def _statistics(log: RequestLog) -> FloatArray:
    times = latencies(log, answered(log))
    ttft, tpot = times.ttft_ns, times.tpot_ns
    found = [ttft.mean(), *np.quantile(ttft, [0.1, 0.5, 0.9, 0.98]), tpot.mean(), np.quantile(tpot, 0.9)]
    return np.log(np.maximum(found, 1.0))


def _used(log: RequestLog, slo: Slo) -> tuple[float, ...]:
    """Share of each limit that its statistic uses; a single 0 where all are lifted."""
    times = latencies(log, answered(log))
    return tuple(used_frac(limit, limit_s, times) for limit, limit_s in slo.limits) or (0.0,)


def _highest(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The highest rate that holds, to _TOLERANCE, where `low` does and `high` does not."""
    while high / low > _TOLERANCE:
        middle = (low * high) ** 0.5
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
