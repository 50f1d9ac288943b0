"""Describe the capacity search on one deployment: the rates it found, its probes, and its cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

from tune.analysis.slo import figure_s
from tune.analysis.validity import is_too_short
from tune.records.outcome import CapacityQps, Outcome, Probe
from tune.report import formatting
from tune.report.trial_status import limit_shares
from tune.spec.load import Slo

ProbeStatus = Literal["held", "missed", "aborted", "too short", "invalid"]
PROBE_STATUSES: tuple[ProbeStatus, ...] = get_args(ProbeStatus)

PROBE_LENGTHS = ("full run", "short run")

PHASE_NAMES = {
    "probes_s": "of probes",
    "drain_s": "of draining",
    "search_s": "of choosing rates",
    "warm_up_s": "of warm-up",
    "bring_up_s": "of bring-up",
}
"""Fields of an attempt's phases in the order shown: those of the search come first."""

MIN_SHOWN_S = 0.5
"""Shortest phase that is shown, s: a shorter one rounds to 0 s."""


def is_capacity_search(outcome: Outcome) -> bool:
    """Return True if the deployment was searched for its capacity instead of measured at one rate."""
    return bool(outcome.probes) and (outcome.capacity_qps.estimate is not None or len(outcome.probes) > 1)


def probe_status(probe: Probe) -> ProbeStatus:
    """Return what a probe shows about its rate.

    An aborted run missed the SLO: it ended once more requests were late than the whole run allows. A short
    run that ended before the rack was full shows nothing about the SLO; the forecast is fitted to it.
    """
    if not probe.valid:
        return "invalid" if probe.full or not is_too_short(probe.reason) else "too short"
    if probe.stopped:
        return "aborted"
    return "held" if probe.feasible else "missed"


def probe_length(probe: Probe) -> str:
    """Return "full run" for a run as the benchmark demands it, "short run" for a shortened one."""
    return PROBE_LENGTHS[0] if probe.full else PROBE_LENGTHS[1]


def describe_capacity(outcome: Outcome) -> str:
    """Return the rates that a capacity search found, as one clause.

    For example: 16.05 QPS verified, 16.3 QPS missed, estimated capacity 16.2 QPS (pool capacity: prefill
    18.3 QPS, decode 16.5 QPS). Where no rate held, it says by how much the lowest one missed.
    """
    rates = outcome.capacity_qps
    if rates.stopped_early:
        return outcome.reason or "stopped early"
    if rates.low is None:
        parts = [f"no rate held the SLO: {_describe_lowest_miss(outcome)}"]
    elif rates.high is None:
        parts = [f"{formatting.rate(rates.low)} verified, no full run above it missed"]
    else:
        parts = [f"{formatting.rate(rates.low)} verified, {formatting.rate(rates.high)} missed"]
    if rates.estimate:
        parts.append(f"estimated capacity {formatting.rate(rates.estimate)}{_describe_pools(rates)}")
    elif rates.estimate is not None:
        parts.append("and no rate is expected to hold it")
    return ", ".join(parts) + _describe_widening(rates)


def _describe_widening(rates: CapacityQps) -> str:
    """Return that the verified rate lies outside of the first range of rates; empty where it does not."""
    if rates.low is None or rates.range is None or rates.range[0] <= rates.low <= rates.range[1]:
        return ""
    low, high = rates.range
    side = "above" if rates.low > high else "below"
    return f"; {side} the range {low:g} to {formatting.rate(high)} in which the search began"


def _describe_pools(rates: CapacityQps) -> str:
    """Return the capacity of each pool in parentheses, empty if they are not on record."""
    if rates.prefill is None or rates.decode is None:
        return ""
    prefill, decode = formatting.rate(rates.prefill), formatting.rate(rates.decode)
    return f" (pool capacity: prefill {prefill}, decode {decode})"


def describe_cost(outcome: Outcome) -> str:
    """Return what a capacity search cost, as one clause.

    For example: 4 probes lasting 1.3 full runs, 1,400 s of arrivals, 49.1 GPU-hours. Phases of the attempts,
    where they are on record, replace the time of arrivals.
    """
    runs = full_run_equivalents(outcome)
    probes = formatting.plural(len(outcome.probes), "probe")
    if runs is not None:
        probes += f" lasting {formatting.format_figure(runs, 2)} full runs"
    arrivals = f"{sum(map(arrivals_s, outcome.probes)):,.0f} s of arrivals"
    times = [f"{phase_s:,.0f} s {name}" for name, phase_s in _phases_s(outcome).items()] or [arrivals]
    return ", ".join([probes, *times, f"{formatting.format_figure(outcome.gpu_hours)} GPU-hours"])


def _phases_s(outcome: Outcome) -> dict[str, float]:
    """Return the seconds of each phase, summed over attempts, by its name; empty if none is on record."""
    recorded = [attempt.phases for attempt in outcome.attempts if attempt.phases]
    sums_s = {name: sum(getattr(phases, field) for phases in recorded) for field, name in PHASE_NAMES.items()}
    return {name: phase_s for name, phase_s in sums_s.items() if phase_s >= MIN_SHOWN_S}


def arrivals_s(probe: Probe) -> float:
    """Return how long the requests of a probe take to arrive, s: their number divided by the rate."""
    return probe.queries / (probe.target_qps or probe.completed_qps or math.inf)


def full_run_equivalents(outcome: Outcome) -> float | None:
    """Return the arrival time of all probes divided by that of the longest completed full run.

    Returns None if no full run was completed.
    """
    completed_s = [arrivals_s(probe) for probe in outcome.probes if probe.full and not probe.stopped]
    return sum(map(arrivals_s, outcome.probes)) / max(completed_s) if completed_s else None


def summarise_probes(outcomes: Sequence[Outcome]) -> str:
    """Return how many probes ran in a study and how many of each length held, missed, aborted or failed."""
    probes = [probe for outcome in outcomes for probe in outcome.probes]
    counts = Counter((probe_length(probe), probe_status(probe)) for probe in probes)
    full, short = (
        ", ".join(
            f"{counts[length, status]:,} {status}" for status in PROBE_STATUSES if counts[length, status]
        )
        or "none"
        for length in PROBE_LENGTHS
    )
    deployments = formatting.plural(sum(bool(o.probes) for o in outcomes), "deployment")
    hours = formatting.format_figure(sum(map(arrivals_s, probes)) / 3600)
    total = f"{formatting.plural(len(probes), 'probe')} on {deployments}, {hours} h of arrivals"
    return f"{total}; full runs: {full}; short runs: {short}"


def probe_lines(outcome: Outcome, slo: Slo) -> list[str]:
    """Return one aligned line per probe, in the order run, with its figure of every limit that is shown."""

    def figures(probe: Probe) -> str:
        """Return the figure of each limit, such as "p99 TTFT   4.31 s"."""
        values = ((limit, figure_s(limit, probe.statistics_of(limit.latency))) for limit in slo.shown)
        return "".join(
            f"{limit.label} {formatting.format_latency(limit.latency, s):>8}  " for limit, s in values
        )

    return [
        f"{number}  {probe.offered_qps:>6.4g} QPS  {probe_length(probe):<9}  {probe_status(probe):<9}  "
        f"{figures(probe)}{probe.queries:,} queries"
        for number, probe in enumerate(outcome.probes, start=1)
    ]


def _describe_lowest_miss(outcome: Outcome) -> str:
    """Return by how much the lowest rate missed: of the full runs, or of short runs if there is none."""
    full = [probe for probe in outcome.probes if probe.full]
    lowest = min(full or outcome.probes, key=lambda probe: probe.offered_qps)
    misses = [_describe_excess(name, share) for name, share in limit_shares(lowest).items() if share > 1]
    text = " and ".join(misses)
    if not misses:
        text = f"did not hold: {lowest.reason or 'too few queries to prove that it holds'}"
    when = " when the run was aborted" if lowest.stopped else ""
    return (
        f"the lowest rate tried, {formatting.rate(lowest.offered_qps)} ({probe_length(lowest)}), {text}{when}"
    )


def _describe_excess(name: str, share: float) -> str:
    """Return how far a latency exceeds its limit: in percent, or as a multiple from twice the limit on."""
    if share < 2:
        return f"exceeded the {name} limit by {formatting.format_figure((share - 1) * 100)} %"
    return f"reached {formatting.format_figure(share)} times the {name} limit"
