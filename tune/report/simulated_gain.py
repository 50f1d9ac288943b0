"""Simulate what a change of a configuration gains: how much higher a rate holds its SLO."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

from tune.analysis.bottleneck import is_saturated
from tune.analysis.measure import completion_qps
from tune.analysis.slo import share_text, slo_holds, used_frac
from tune.loadgen.latencies import answered, latencies
from tune.records.requests import RequestLog
from tune.sim.simulator import simulate_serving
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec

SMALLEST_GAIN_FRAC = 0.01
"""Share by which a change has to raise the rate, or lower the tightest limit's use, to count. Chosen here."""

BEFORE_TOLERANCE, AFTER_TOLERANCE = 1.0065, 1.0125
"""Ratios of rates at which the search for the highest one ends: before a change, finer than the gain that
counts, and after it. Chosen here: 1.05 halved three and two times, on the scale of the logarithm."""

FIRST_FACTOR, MAX_FACTOR = 1.05, 4.0
"""First step of that search, each further one the square of the last, and how far it goes. Chosen here."""


@dataclass(frozen=True, eq=False)
class SimulatedTrial:
    """Simulate a trial once, and what changes of it gain."""

    measured: TrialSpec
    calibration: Calibration

    def expected_gain(self, changed: TrialSpec) -> str | None:
        """Return in words what the simulator expects a change to gain, None where that is nothing.

        The highest rates that hold the SLO are compared, as a limit that is used less may be one that a
        higher rate does not break first. The latencies of a rack that cannot follow its load say how long
        the run is; there completions count. Where no rate holds, the tightest limit counts.
        """
        target_qps = self.measured.load.offered_qps
        if _is_saturated(self._run, target_qps):
            before_qps = _completed_qps(self._run)
            after_qps = _completed_qps(_run(changed, target_qps, self.calibration))
            gains = after_qps >= before_qps * (1 + SMALLEST_GAIN_FRAC)
            return f"completes {after_qps:.3g} instead of {before_qps:.3g} queries/s" if gains else None
        if self.highest_qps:
            other = partial(_holds, changed, self.calibration)
            least_qps = self.highest_qps * (1 + SMALLEST_GAIN_FRAC)
            if not other(least_qps):
                return None
            after_qps = _highest_qps(other, least_qps, AFTER_TOLERANCE)
            return f"holds at up to {after_qps:.4g} instead of {self.highest_qps:.4g} queries/s"
        return _freed(self._run, _run(changed, target_qps, self.calibration), self.measured)

    @cached_property
    def _run(self) -> RequestLog:
        """Return the trial's run at its rate."""
        return _run(self.measured, self.measured.load.offered_qps, self.calibration)

    @cached_property
    def highest_qps(self) -> float:
        """Return the highest rate that the trial holds, 0 if none does."""
        search = _highest_qps if slo_holds(self._run, self.measured.slo) else _next_lower_qps
        own = partial(_holds, self.measured, self.calibration)
        return search(own, self.measured.load.offered_qps, BEFORE_TOLERANCE)


def _freed(before: RequestLog, after: RequestLog, measured: TrialSpec) -> str | None:
    """Return which share of the tightest limit is used after a change, None where it is no smaller one."""
    before_frac, after_frac = (_tightest_share(log, measured) for log in (before, after))
    if after_frac > before_frac - SMALLEST_GAIN_FRAC:
        return None
    instead = share_text(before_frac).removesuffix(" of")
    return f"{share_text(after_frac)} the tightest limit used instead of {instead}"


def _highest_qps(holds: Callable[[float], bool], qps: float, tolerance: float) -> float:
    """Return the highest rate that holds, at most MAX_FACTOR times `qps`, which does."""
    low, high, factor = qps, qps * FIRST_FACTOR, FIRST_FACTOR
    while holds(high):
        if high >= qps * MAX_FACTOR:
            return high
        factor **= 2
        low, high = high, high * factor
    return _bisected_qps(holds, low, high, tolerance)


def _next_lower_qps(holds: Callable[[float], bool], qps: float, tolerance: float) -> float:
    """Return the highest rate that holds, at least `qps` / MAX_FACTOR; 0 if none does. `qps` does not."""
    low, high, factor = qps / FIRST_FACTOR, qps, FIRST_FACTOR
    while not holds(low):
        if low <= qps / MAX_FACTOR:
            return 0.0
        factor **= 2
        low, high = low / factor, low
    return _bisected_qps(holds, low, high, tolerance)


def _bisected_qps(holds: Callable[[float], bool], low: float, high: float, tolerance: float) -> float:
    """Return the highest rate that holds, where `low` does and `high` does not."""
    while high / low > tolerance:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _holds(spec: TrialSpec, calibration: Calibration, qps: float) -> bool:
    """Return whether a simulated rack follows a rate and holds its SLO."""
    log = _run(spec, qps, calibration)
    return slo_holds(log, spec.slo) and not _is_saturated(log, qps)


def _run(spec: TrialSpec, qps: float, calibration: Calibration) -> RequestLog:
    """Simulate a run at a rate."""
    return simulate_serving(spec.model_copy(update={"load": spec.load.at(qps)}), calibration)


def _is_saturated(log: RequestLog, qps: float) -> bool:
    """Return whether a run completes too few of the queries that it is offered."""
    return is_saturated(qps, _completed_qps(log), len(log))


def _completed_qps(log: RequestLog) -> float:
    """Return the rate of completions, 0 where nothing was answered."""
    good = answered(log)
    return completion_qps(log, latencies(log, good), good) or 0.0


def _tightest_share(log: RequestLog, spec: TrialSpec) -> float:
    """Return the largest share of a limit that a run uses."""
    times = latencies(log, answered(log))
    return max((used_frac(limit, limit_s, times) for limit, limit_s in spec.slo.limits), default=0.0)
