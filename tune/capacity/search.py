"""Plan the probes that find the highest rate at which one deployment holds its SLO. Pure.

Full runs take most of a deployment's time, so a few short probes come first. A forecast fitted to them says
where the full run belongs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tune.loadgen.early_stopping import MIN_QUERIES
from tune.records.requests import RequestLog
from tune.spec.load import Load, readable_qps
from tune.spec.split import Role

SHORT_PROBE_QUERIES = 1200
"""Requests of a short probe, but never more than SHORT_PROBE_MAX_FRAC of the full run. Chosen here: enough to
measure the mean TTFT to about 4 % (standard deviation)."""

SHORT_PROBE_MAX_FRAC = 1 / 7
"""Largest share of a full run's requests that a short probe has."""

FORECAST_AGREEMENT_FRAC = 0.08
"""Short probes end when the last one lies this near to the forecast rate."""

MAX_SHORT_PROBES, MAX_FULL_RUNS = 4, 6
"""Limits of the number of probes on one deployment."""

FULL_RUN_STEP_FRAC, MAX_POOLED_STEPS = 0.008, 4
"""After a full run that missed, the next one is lower by at least this share. A full run whose rate should
hold in its own shuffle, but not pooled over many, is lowered by up to this number of such steps."""

REPEAT_RESIDUAL_FRAC = 0.05
"""A full run is repeated if it missed as a run at a rate higher by this share should have. Chosen here."""

EARLY_STOP_MARGIN_FRAC = 0.05
"""After a probe that missed, a deployment is stopped early if its forecast lies below the early-stop
threshold by this share. Chosen here; docs/benchmarks.md states its cost in wrong verdicts."""

RANGE_WIDENING_FACTOR = 1.5
"""Factor by which `load.rate_range_qps` grows beyond an end that a probe reached. Chosen here: a forecast
that is wrong by more leads to no probe far outside of the range."""

FULL_RUN_MARGIN_FRAC = 0.012
"""How far below the forecast capacity a full run is placed, as a share of it."""


@dataclass(frozen=True)
class ProbePlan:
    """Describe one probe: a short one of `queries` requests (Load.sample), or the full run if None."""

    target_qps: float
    queries: int | None


@dataclass(frozen=True)
class ProbeVerdict:
    """Hold one probe and whether every limit of the SLO held; None if the measurement is invalid."""

    plan: ProbePlan
    slo_met: bool | None


@dataclass(frozen=True)
class CapacityResult:
    """Hold the result of a capacity search; rates are queries/s.

    `verified_qps` is the highest rate whose full run held, None if none did. `missed_qps` is the lowest rate
    above it whose full run did not hold. `capacity_qps` is the estimated rate that holds under half of all
    shuffles. `prefill_capacity_qps` and `decode_capacity_qps` are what each pool sustains when the other
    never limits it, None where nothing forecast it. `stopped_early`: the capacity is clearly below
    the early-stop threshold.
    """

    verified_qps: float | None
    missed_qps: float | None
    capacity_qps: float
    prefill_capacity_qps: float | None
    decode_capacity_qps: float | None
    stopped_early: bool = False


class Forecast(Protocol):
    """Forecast the deployment's behaviour at any rate from its probes."""

    def learn(self, target_qps: float, log: RequestLog, *, full: bool) -> None:
        """Fit the forecast to one more probe at `target_qps`.

        `log` holds its requests from the first on, without gaps. `full` marks a run planned at full length,
        even if it was stopped.
        """

    def full_run_qps(self) -> float:
        """Return the highest rate at which a full run should hold in its own shuffle; 0 if none."""

    def capacity_qps(self) -> float:
        """Return the highest rate at which a full run should hold under half of all shuffles; 0 if none."""

    def holds_pooled(self, qps: float) -> bool:
        """Return whether the requests of full runs under many shuffles, pooled, should hold the SLO."""

    def pool_capacity_qps(self, role: Role) -> float | None:
        """Return the capacity if the other pool never limited it; None where there is one pool."""

    def log_rate_residual(self) -> float:
        """Return how the last full run compares with the forecast from all probes, as a log rate ratio.

        A value of -0.05 means that it performed like a run at a rate 5 % higher.
        """


def search_capacity(
    load: Load,
    forecast: Forecast,
    measure: Callable[[ProbePlan], tuple[RequestLog, bool | None]],
    early_stop_qps: float | None = None,
) -> Iterator[ProbeVerdict | CapacityResult]:
    """Run probes until the capacity is known.

    Parameters
    ----------
    load
        Load of the trial.
    forecast
        Fitted to each probe as it ends.
    measure
        Runs a probe; returns its requests and whether the SLO held.
    early_stop_qps
        Early-stop threshold, see `next_step`.

    Yields
    ------
    ProbeVerdict | CapacityResult
        Each probe as it ends, and the result last.
    """
    verdicts: list[ProbeVerdict] = []
    while isinstance(step := next_step(verdicts, forecast, load, early_stop_qps), ProbePlan):
        log, slo_met = measure(step)
        forecast.learn(step.target_qps, log, full=step.queries is None)
        verdicts.append(ProbeVerdict(step, slo_met))
        yield verdicts[-1]
    yield step


def next_step(
    verdicts: Sequence[ProbeVerdict], forecast: Forecast, load: Load, early_stop_qps: float | None = None
) -> ProbePlan | CapacityResult:
    """Return the next probe, or the result.

    Parameters
    ----------
    verdicts
        Probes so far, in order.
    forecast
        Forecast fitted to all of them.
    load
        Load of the trial. Its rate is probed first if the forecast knows of no rate that holds. A rate
        outside its range is probed only once a probe held at the upper end or missed at the lower one.
    early_stop_qps
        Early-stop threshold in queries/s. Only a capacity above it matters, so the first probe is placed just
        above it, and a deployment that clearly stays below it is stopped early.

    Returns
    -------
    ProbePlan | CapacityResult
    """
    load = _widened(load, verdicts)
    if early_stop_qps and not verdicts:
        return _short_probe(early_stop_qps * (1 + load.resolution), load)
    forecast_qps = forecast.full_run_qps()
    if early_stop_qps and _is_dominated(verdicts, forecast_qps, early_stop_qps):
        return _result(None, None, forecast, stopped_early=True)
    expected_qps = load.within(forecast_qps) if forecast_qps else 0.0
    short = [verdict for verdict in verdicts if verdict.plan.queries is not None]
    full = [verdict for verdict in verdicts if verdict.plan.queries is None]
    if not verdicts or (expected_qps and not full and not _short_probes_suffice(short, expected_qps)):
        return _short_probe(expected_qps or load.offered_qps, load)
    if full and _needs_repeat(full, forecast):
        return ProbePlan(full[-1].plan.target_qps, None)
    by_rate = {verdict.plan.target_qps: verdict.slo_met for verdict in full}
    verified = max((qps for qps, slo_met in by_rate.items() if slo_met), default=None)
    missed = min((qps for qps, slo_met in by_rate.items() if not slo_met), default=None)
    planned_qps = _full_run_qps(missed, expected_qps, forecast, load)
    least_qps = verified * (1 + load.resolution) if verified is not None else 0.0
    at_missed = missed is not None and planned_qps >= missed
    invalid = bool(full) and full[-1].slo_met is None
    if not (planned_qps <= least_qps or at_missed or invalid or len(full) >= MAX_FULL_RUNS):
        planned_qps = load.within(readable_qps(_pooled_qps(planned_qps, forecast)))
        if planned_qps > least_qps:
            return ProbePlan(planned_qps, None)
    return _result(verified, missed, forecast)


def _widened(load: Load, verdicts: Sequence[ProbeVerdict]) -> Load:
    """Return `load` with its range moved beyond each end at which a probe decided nothing.

    Every probe that held at the upper end or missed at the lower one moves that end by RANGE_WIDENING_FACTOR.
    A range of one rate stays as it is.
    """
    if load.rate_range_qps is None or load.rate_range_qps[0] == load.rate_range_qps[1]:
        return load
    low, high = load.rate_range_qps
    for verdict in verdicts:
        if verdict.slo_met and verdict.plan.target_qps >= readable_qps(high):
            high *= RANGE_WIDENING_FACTOR
        if verdict.slo_met is False and verdict.plan.target_qps <= low:
            low /= RANGE_WIDENING_FACTOR
    return load.model_copy(update={"rate_range_qps": (low, high)})


def _full_run_qps(missed: float | None, expected_qps: float, forecast: Forecast, load: Load) -> float:
    """Return where the forecast places the next full run; 0 if no rate should hold.

    It lies below the forecast capacity by FULL_RUN_MARGIN_FRAC and below the lowest rate `missed`.
    """
    qps = min(expected_qps, forecast.capacity_qps() * (1 - FULL_RUN_MARGIN_FRAC))
    if missed is not None:
        qps = min(qps, missed * (1 - FULL_RUN_STEP_FRAC))
    return load.within(readable_qps(qps)) if qps else 0.0


def _result(
    verified: float | None, missed: float | None, forecast: Forecast, stopped_early: bool = False
) -> CapacityResult:
    """Return the result with the capacities of the forecast."""
    pools = (forecast.pool_capacity_qps("prefill"), forecast.pool_capacity_qps("decode"))
    return CapacityResult(verified, missed, forecast.capacity_qps(), *pools, stopped_early)


def _pooled_qps(qps: float, forecast: Forecast) -> float:
    """Lower `qps` by up to MAX_POOLED_STEPS steps until it should hold pooled over shuffles."""
    for _ in range(MAX_POOLED_STEPS):
        if forecast.holds_pooled(qps):
            break
        qps *= 1 - FULL_RUN_STEP_FRAC
    return qps


def _short_probe(qps: float, load: Load) -> ProbePlan:
    """Return a short probe near `qps`."""
    return ProbePlan(load.within(readable_qps(load.within(qps))), short_run_queries(load.expected_queries))


def _is_dominated(verdicts: Sequence[ProbeVerdict], forecast_qps: float, early_stop_qps: float) -> bool:
    """Return whether to stop early: a probe missed, no full run held, the forecast is clearly too low."""
    held = any(verdict.slo_met and verdict.plan.queries is None for verdict in verdicts)
    missed = any(verdict.slo_met is False for verdict in verdicts)
    return missed and not held and forecast_qps < early_stop_qps * (1 - EARLY_STOP_MARGIN_FRAC)


def short_run_queries(planned: int) -> int:
    """Return the requests of a short probe of a run of `planned`; enough for a p99 verdict if that is."""
    return min(planned, max(MIN_QUERIES, min(SHORT_PROBE_QUERIES, int(planned * SHORT_PROBE_MAX_FRAC))))


def _needs_repeat(full: Sequence[ProbeVerdict], forecast: Forecast) -> bool:
    """Return whether to repeat the last full run: it was invalid, or missed against the forecast.

    Each rate is repeated at most once; the second verdict counts.
    """
    last = full[-1]
    if last.slo_met or sum(verdict.plan == last.plan for verdict in full) > 1:
        return False
    return last.slo_met is None or forecast.log_rate_residual() < -REPEAT_RESIDUAL_FRAC


def _short_probes_suffice(short: Sequence[ProbeVerdict], expected_qps: float) -> bool:
    """Return whether no further short probe is needed before a full run at `expected_qps`."""
    if len(short) == MAX_SHORT_PROBES:
        return True
    return abs(expected_qps / short[-1].plan.target_qps - 1) <= FORECAST_AGREEMENT_FRAC
