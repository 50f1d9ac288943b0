"""Find the highest rate that holds the SLO by bisection, where no simulator can forecast it. Pure.

Short probes come first, as in tune/capacity/search.py; the full runs begin at the highest rate that held in a
short one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from tune.capacity.search import (
    EARLY_STOP_MARGIN_FRAC,
    MAX_FULL_RUNS,
    CapacityResult,
    ProbePlan,
    ProbeVerdict,
    short_run_queries,
)
from tune.records.requests import RequestLog
from tune.spec.load import Load, readable_qps

GROWTH_FACTOR = 1.5
"""Factor between two rates while all have held, or all have missed. Chosen here."""

MAX_RATE_FACTOR = 32.0
"""Largest ratio of a probed rate to that of the trial, either way."""

SHORT_PROBE_STEPS = 4.0
"""Short probes end when the rates that held and missed are this many resolutions apart: their verdicts are
not sharper. Chosen here."""

FULL_RUN_STEPS = 2.0
"""Resolutions by which the first full run is lowered as long as none has held. Chosen here."""


def bisect_capacity(
    load: Load,
    measure: Callable[[ProbePlan], tuple[RequestLog, bool | None]],
    early_stop_qps: float | None = None,
) -> Iterator[ProbeVerdict | CapacityResult]:
    """Run probes until the highest rate that holds is known to within `load.resolution`.

    Parameters
    ----------
    load
        Load of the trial.
    measure
        Runs a probe; returns its requests and whether the SLO held.
    early_stop_qps
        Early-stop threshold, see `next_bisection`.

    Yields
    ------
    ProbeVerdict | CapacityResult
        Each probe as it ends, and the result last.
    """
    verdicts: list[ProbeVerdict] = []
    while isinstance(step := next_bisection(verdicts, load, early_stop_qps), ProbePlan):
        _, slo_met = measure(step)
        verdicts.append(ProbeVerdict(step, slo_met))
        yield verdicts[-1]
    yield step


def next_bisection(
    verdicts: Sequence[ProbeVerdict], load: Load, early_stop_qps: float | None = None
) -> ProbePlan | CapacityResult:
    """Return the next probe, or the result.

    Parameters
    ----------
    verdicts
        Probes so far, in order. An invalid one is repeated once; a second one ends the search.
    load
        Load of the trial. Its rate is probed first, within its range; the range is left where an end is no
        answer.
    early_stop_qps
        Early-stop threshold in queries/s. The first probe lies just above it, and a deployment that missed
        clearly below it, with no full run that held, is stopped early.

    Returns
    -------
    ProbePlan | CapacityResult
        `capacity_qps` of a result is the geometric mean of the highest rate that held and the lowest that
        missed.
    """
    if not verdicts:
        first_qps = early_stop_qps * (1 + load.resolution) if early_stop_qps else load.offered_qps
        within = load.within(first_qps)
        return ProbePlan(within, None) if _tries_one_rate(load) else _short(within, load)
    invalid = verdicts[-1].slo_met is None
    if invalid and verdicts[-1].plan not in [verdict.plan for verdict in verdicts[:-1]]:
        return verdicts[-1].plan
    if early_stop_qps and _is_dominated(verdicts, early_stop_qps):
        return _result(verdicts, stopped_early=True)
    planned = None if invalid or _tries_one_rate(load) else _next_probe(verdicts, load)
    return planned or _result(verdicts)


def _is_dominated(verdicts: Sequence[ProbeVerdict], early_stop_qps: float) -> bool:
    """Return whether to stop early: a probe missed clearly below the threshold, and no full run held."""
    _, missed = _bracket(verdicts)
    verified, _ = _bracket([verdict for verdict in verdicts if verdict.plan.queries is None])
    return missed is not None and not verified and missed < early_stop_qps * (1 - EARLY_STOP_MARGIN_FRAC)


def _next_probe(verdicts: Sequence[ProbeVerdict], load: Load) -> ProbePlan | None:
    """Return the probe that narrows the bracket next, None where none does."""
    held, missed = _bracket(verdicts)
    full = [verdict for verdict in verdicts if verdict.plan.queries is None]
    only_full = len(full) == len(verdicts)
    bracketing_qps = _bracketing_qps(held, missed, load) if not full or only_full else None
    if bracketing_qps is not None:
        return _short(bracketing_qps, load)
    if held is None or (len(full) >= MAX_FULL_RUNS and not only_full):
        return None
    full_qps = _full_run_qps(full, held, missed, load)
    return None if full_qps is None else ProbePlan(full_qps, None)


def _tries_one_rate(load: Load) -> bool:
    """Return whether the range of the load is one rate."""
    return load.rate_range_qps is not None and load.rate_range_qps[0] == load.rate_range_qps[1]


def _bracketing_qps(held: float | None, missed: float | None, load: Load) -> float | None:
    """Return the rate of the next probe that narrows the bracket, None once it is narrow or out of range."""
    if held is not None and missed is not None:
        wide = missed / held > 1 + SHORT_PROBE_STEPS * load.resolution
        return math.sqrt(held * missed) if wide else None
    qps = held * GROWTH_FACTOR if held is not None else (missed or 0.0) / GROWTH_FACTOR
    within = load.offered_qps / MAX_RATE_FACTOR <= qps <= load.offered_qps * MAX_RATE_FACTOR
    return qps if within else None


def _full_run_qps(
    full: Sequence[ProbeVerdict], held: float, missed: float | None, load: Load
) -> float | None:
    """Return the rate of the next full run, None once the answer is known to within the resolution.

    `held` and `missed` are the bracket of all probes, full and short.
    """
    verified, refuted = _bracket(full)
    if verified is None:
        return held if refuted is None else readable_qps(refuted / (1 + FULL_RUN_STEPS * load.resolution))
    above = refuted or missed
    if above is None or above / verified <= 1 + load.resolution:
        return None
    qps = readable_qps(math.sqrt(verified * above))
    return qps if verified < qps < above else None


def _bracket(verdicts: Sequence[ProbeVerdict]) -> tuple[float | None, float | None]:
    """Return the highest rate that held and the lowest above it that missed, None where there is none.

    The last of two verdicts at one rate counts, which is that of the longer run. Where rates that missed lie
    below one that held, those that missed count: a p99 that missed was seen, one that held may be luck.
    """
    by_rate = {verdict.plan.target_qps: verdict.slo_met for verdict in verdicts}
    missed = min((qps for qps, slo_met in by_rate.items() if slo_met is False), default=None)
    below = math.inf if missed is None else missed
    return max((qps for qps, slo_met in by_rate.items() if slo_met and qps < below), default=None), missed


def _short(qps: float, load: Load) -> ProbePlan:
    """Return a short probe near `qps`; a full run where a short one would save less than half of it."""
    planned = load.expected_queries
    queries = short_run_queries(planned)
    return ProbePlan(readable_qps(qps), queries if queries <= planned / 2 else None)


def _result(verdicts: Sequence[ProbeVerdict], *, stopped_early: bool = False) -> CapacityResult:
    """Return what the full runs verified, and the middle of the bracket of all probes."""
    held, missed = _bracket(verdicts)
    verified, refuted = _bracket([verdict for verdict in verdicts if verdict.plan.queries is None])
    capacity_qps = math.sqrt(held * missed) if held and missed else (held or 0.0)
    return CapacityResult(verified, refuted, capacity_qps, None, None, stopped_early)
