"""The highest rate that holds the SLO, on one deployment: which probe comes next, or the answer. Pure.

A run of full length costs most of what a deployment costs, so a few short probes come first, and a forecast
that has learned from them says where the one run of full length belongs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tune.loadgen.early_stopping import MIN_QUERIES
from tune.records.requests import RequestLog
from tune.spec.load import Load, readable_qps
from tune.spec.split import Role

SHORT_QUERIES = 1200
"""Of a short probe, and never more than SHORT_FRAC of the run of full length. Our choice: enough to tell the
mean TTFT to about 4 % (sd)."""

SHORT_FRAC = 1 / 7

NEAR_FRAC = 0.08
"""A short probe this near to the forecast has shown the rack where it matters."""

MOST_SHORT, MOST_FULL = 4, 6

STEP_FRAC, MOST_STEPS = 0.008, 4
"""A run of full length that missed is followed by one at a rate lower by this at least; one that should hold,
but not in all orders together, is put lower by up to so many such steps."""

DOUBT_FRAC = 0.05
"""A run of full length that missed, as one at a rate higher by this should have, is repeated. Our choice."""

BEATEN_FRAC = 0.05
"""A deployment whose forecast, after a probe that missed, lies so far below the rate to beat is given up. Our
choice: what that costs in wrong verdicts is in docs/benchmarks.md."""

MARGIN_FRAC = 0.012
"""How far below the forecast boundary a run of full length is placed."""


@dataclass(frozen=True)
class ProbePlan:
    """One probe: the run of full length where `queries` is None, else a short one, as Load.sample says."""

    target_qps: float
    queries: int | None


@dataclass(frozen=True)
class ProbeVerdict:
    """What a probe came to: whether every limit held, None where it cannot be trusted."""

    ask: ProbePlan
    held: bool | None


@dataclass(frozen=True)
class CapacityResult:
    """`verified_qps`: the highest rate whose run of full length held, None where none did. `missed_qps`: the
    lowest that did not, above it. `capacity_qps`: where half of all orders of lengths would hold;
    `prefill_capacity_qps`, `decode_capacity_qps`: what that pool could do were the other no limit. `censored`: the deployment
    was given up, since the boundary is clearly below the rate to beat."""

    verified_qps: float | None
    missed_qps: float | None
    capacity_qps: float
    prefill_capacity_qps: float
    decode_capacity_qps: float
    censored: bool = False


class Forecast(Protocol):
    """What is expected of the deployment, by all that was seen of it."""

    def learn(self, target_qps: float, log: RequestLog, *, full: bool) -> None:
        """Take in a probe at `target_qps`: `log` holds its requests from the first on, none left out.

        `full`: it was to be the run of full length, whether or not it came to its end.
        """

    def full_run_qps(self) -> float:
        """The highest rate at which a run of full length should hold, in its own order of lengths, or 0."""

    def capacity_qps(self) -> float:
        """The highest rate at which a run of full length should hold in half of all orders, or 0."""

    def holds_pooled(self, qps: float) -> bool:
        """Whether the requests of runs of full length in many orders, taken together, should hold the SLO."""

    def pool_capacity_qps(self, role: Role) -> float:
        """What `capacity_qps` would be were the other pool no limit."""

    def surprise(self) -> float:
        """How the last run of full length did beside what all probes together make expect, as ln of a rate:
        -0.05 is to have done as a run at a rate 5 % higher should."""


def search_capacity(
    load: Load,
    forecast: Forecast,
    measure: Callable[[ProbePlan], tuple[RequestLog, bool | None]],
    early_stop_qps: float | None = None,
) -> Iterator[ProbeVerdict | CapacityResult]:
    """Probe by `measure`, which returns the record of a probe and whether it held, up to the answer.

    `early_stop_qps`: as `next_step` says. Yields each probe as it ends, the answer last.
    """
    seen: list[ProbeVerdict] = []
    while isinstance(step := next_step(seen, forecast, load, early_stop_qps), ProbePlan):
        log, held = measure(step)
        forecast.learn(step.target_qps, log, full=step.queries is None)
        seen.append(ProbeVerdict(step, held))
        yield seen[-1]
    yield step


def next_step(
    seen: Sequence[ProbeVerdict], forecast: Forecast, load: Load, early_stop_qps: float | None = None
) -> ProbePlan | CapacityResult:
    """The next probe after those `seen`, in order, or the answer.

    `load`: of the trial, its rate the first one where the forecast knows of none. None outside its bracket is
    asked: what holds there at its end, or misses, is the answer. `early_stop_qps`: only an answer above it matters;
    a first probe goes just there, and a deployment that clearly stays below it is given up.
    """
    if early_stop_qps and not seen:
        return _short(early_stop_qps * (1 + load.resolution), load)
    forecast_qps = forecast.full_run_qps()
    if early_stop_qps and _beaten(seen, forecast_qps, early_stop_qps):
        return _answer(None, None, forecast, censored=True)
    expected_capacity_qps = load.within(forecast_qps) if forecast_qps else 0.0
    short = [one for one in seen if one.ask.queries is not None]
    full = [one for one in seen if one.ask.queries is None]
    if not seen or (expected_capacity_qps and not full and not _shown(short, expected_capacity_qps)):
        return _short(expected_capacity_qps or load.target_qps, load)
    if full and _doubtful(full, forecast):
        return ProbePlan(full[-1].ask.target_qps, None)
    verdicts = {one.ask.target_qps: one.held for one in full}
    confirmed = max((qps for qps, held in verdicts.items() if held), default=None)
    missed = min((qps for qps, held in verdicts.items() if not held), default=None)
    capacity_qps = forecast.capacity_qps()
    ahead = min(expected_capacity_qps, capacity_qps * (1 - MARGIN_FRAC))
    if missed is not None:
        ahead = min(ahead, missed * (1 - STEP_FRAC))
    ahead = load.within(readable_qps(ahead)) if ahead else 0.0
    enough_qps = confirmed * (1 + load.resolution) if confirmed is not None else 0.0
    lowest_missed = missed is not None and ahead >= missed
    untrusted = bool(full) and full[-1].held is None
    if not (ahead <= enough_qps or lowest_missed or untrusted or len(full) >= MOST_FULL):
        ahead = load.within(readable_qps(_safe(ahead, forecast)))
        if ahead > enough_qps:
            return ProbePlan(ahead, None)
    return _answer(confirmed, missed, forecast)


def _answer(
    confirmed: float | None, missed: float | None, forecast: Forecast, censored: bool = False
) -> CapacityResult:
    alone = (forecast.pool_capacity_qps("prefill"), forecast.pool_capacity_qps("decode"))
    return CapacityResult(confirmed, missed, forecast.capacity_qps(), *alone, censored)


def _safe(qps: float, forecast: Forecast) -> float:
    """The highest rate up to `qps` that should hold in all orders together, or one MOST_STEPS lower."""
    for _ in range(MOST_STEPS):
        if forecast.holds_pooled(qps):
            break
        qps *= 1 - STEP_FRAC
    return qps


def _short(qps: float, load: Load) -> ProbePlan:
    return ProbePlan(load.within(readable_qps(load.within(qps))), short_run_queries(load.expected_queries))


def _beaten(seen: Sequence[ProbeVerdict], forecast_qps: float, early_stop_qps: float) -> bool:
    """Whether a probe missed, none of full length held, and the forecast lies clearly below `early_stop_qps`."""
    held = any(one.held and one.ask.queries is None for one in seen)
    missed = any(one.held is False for one in seen)
    return missed and not held and forecast_qps < early_stop_qps * (1 - BEATEN_FRAC)


def short_run_queries(planned: int) -> int:
    """Of a short probe of a run of `planned`: enough for a verdict on a p99 where that has as many."""
    return min(planned, max(MIN_QUERIES, min(SHORT_QUERIES, int(planned * SHORT_FRAC))))


def _doubtful(full: Sequence[ProbeVerdict], forecast: Forecast) -> bool:
    """Whether the last run of full length is to be repeated: it said nothing, or not what the others say.

    Once at each rate: what it comes to then counts.
    """
    last = full[-1]
    if last.held or sum(one.ask == last.ask for one in full) > 1:
        return False
    return last.held is None or forecast.surprise() < -DOUBT_FRAC


def _shown(short: Sequence[ProbeVerdict], expected_capacity_qps: float) -> bool:
    """Whether short probes have shown all that they can."""
    return len(short) == MOST_SHORT or abs(expected_capacity_qps / short[-1].ask.target_qps - 1) <= NEAR_FRAC
