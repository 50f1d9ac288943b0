"""The search for the highest rate on one deployment, in words: its probes, its bracket, what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

from tune.loadgen.latencies import p99_s
from tune.records.outcome import CapacityQps, Outcome, Probe
from tune.report import formatting
from tune.report.trial_status import used

CameTo = Literal["held", "missed", "stopped early", "not trusted"]
ALL_CAME_TO: tuple[CameTo, ...] = get_args(CameTo)

PHASES = {
    "probes_s": "in probes",
    "drain_s": "draining",
    "search_s": "reckoning",
    "warm_up_s": "warming up",
    "bring_up_s": "bringing up",
}
"""Fields of an attempt's phases, the search first."""

LEAST_TOLD_S = 0.5
"""A phase below it would be told as 0 s."""


def searched(outcome: Outcome) -> bool:
    """Whether a deployment was asked for its highest rate rather than one rate."""
    return bool(outcome.probes) and (outcome.capacity_qps.estimate is not None or len(outcome.probes) > 1)


def came_to(probe: Probe) -> CameTo:
    """What a probe says of its rate; a stopped one missed, and its figures end where that was certain."""
    if not probe.valid:
        return "not trusted"
    if probe.stopped:
        return "stopped early"
    return "held" if probe.feasible else "missed"


def kind(probe: Probe) -> str:
    return "full length" if probe.full else "short probe"


def bracket(outcome: Outcome) -> str:
    """16.05 QPS held, 16.3 missed, boundary 16.2 (prefill alone 18.3, decode alone 16.5); or by how much the
    lowest rate missed."""
    found = outcome.capacity_qps
    if found.censored:
        return outcome.reason or "given up"
    if found.low is None:
        parts = [f"no rate held: {_lowest(outcome)}"]
    elif found.high is None:
        parts = [f"{formatting.rate(found.low)} held, none above it missed at full length"]
    else:
        parts = [f"{formatting.rate(found.low)} held, {found.high:.4g} missed"]
    if found.estimate:
        parts.append(f"boundary {found.estimate:.4g}{_alone(found)}")
    elif found.estimate is not None:
        parts.append("and no rate is expected to hold")
    return ", ".join(parts)


def _alone(found: CapacityQps) -> str:
    if found.prefill is None or found.decode is None:
        return ""
    return f" (prefill alone {found.prefill:.4g}, decode alone {found.decode:.4g})"


def cost(outcome: Outcome) -> str:
    """4 probes, 1.3 full runs, 1,400 s of arrivals, 49.1 GPU-hours; full runs where one came to its end.

    Where attempts tell what they held their GPUs for, their phases stand in the place of arrivals.
    """
    runs = full_runs(outcome)
    parts = [formatting.plural(len(outcome.probes), "probe")]
    if runs is not None:
        parts.append(f"{formatting.format_figure(runs, 2)} full runs")
    arrivals = f"{sum(map(arrivals_s, outcome.probes)):,.0f} s of arrivals"
    parts += [f"{took_s:,.0f} s {what}" for what, took_s in _phases_s(outcome).items()] or [arrivals]
    return ", ".join([*parts, f"{formatting.format_figure(outcome.gpu_hours)} GPU-hours"])


def _phases_s(outcome: Outcome) -> dict[str, float]:
    """What the attempts held their GPUs for, s, in words; empty where none is on record."""
    told = [attempt.phases for attempt in outcome.attempts if attempt.phases]
    sums_s = {what: sum(getattr(phases, name) for phases in told) for name, what in PHASES.items()}
    return {what: took_s for what, took_s in sums_s.items() if took_s >= LEAST_TOLD_S}


def arrivals_s(probe: Probe) -> float:
    """How long the requests of a probe take to arrive, s: their number over the rate."""
    return probe.queries / probe.target_qps


def full_runs(outcome: Outcome) -> float | None:
    """Time of arrivals of all probes over that of the longest run of full length that came to its end.

    None where none did.
    """
    whole_s = [arrivals_s(probe) for probe in outcome.probes if probe.full and not probe.stopped]
    return sum(map(arrivals_s, outcome.probes)) / max(whole_s) if whole_s else None


def probes_in_all(outcomes: Sequence[Outcome]) -> str:
    """How many probes the deployments of a study were asked, and what they came to."""
    probes = [probe for outcome in outcomes for probe in outcome.probes]
    counts = Counter((kind(probe), came_to(probe)) for probe in probes)
    full, short = (
        ", ".join(f"{counts[which, to]:,} {to}" for to in ALL_CAME_TO if counts[which, to]) or "none"
        for which in ("full length", "short probe")
    )
    deployments = formatting.plural(sum(bool(o.probes) for o in outcomes), "deployment")
    hours = formatting.format_figure(sum(map(arrivals_s, probes)) / 3600)
    told = f"{formatting.plural(len(probes), 'probe')} on {deployments}, {hours} h of arrivals"
    return f"{told}; of full length: {full}; short: {short}"


def probe_lines(outcome: Outcome) -> list[str]:
    """One aligned line a probe, in the order asked."""
    return [
        f"{number}  {probe.target_qps:>6.4g} QPS  {kind(probe)}  {came_to(probe):<13}  "
        f"p99 TTFT {formatting.seconds(p99_s(probe.ttft_s)):>8}  TPOT {formatting.milliseconds(p99_s(probe.tpot_s)):>8}"
        f"  {probe.queries:,} queries"
        for number, probe in enumerate(outcome.probes, start=1)
    ]


def _lowest(outcome: Outcome) -> str:
    """By how much the lowest rate missed: of runs of full length, else of short probes."""
    full = [probe for probe in outcome.probes if probe.full]
    lowest = min(full or outcome.probes, key=lambda probe: probe.target_qps)
    missed = [f"{name} {_by(share)}" for name, share in used(lowest).items() if share > 1]
    how = " and ".join(missed) if missed else lowest.reason or "too few queries to prove that it holds"
    when = " when it was stopped" if lowest.stopped else ""
    colon = "" if missed else ":"
    return f"the lowest, {formatting.rate(lowest.target_qps)} ({kind(lowest)}), missed{colon} {how}{when}"


def _by(share: float) -> str:
    """How far past a limit: in percent of it, or as its multiple where that is more telling."""
    if share < 2:
        return f"by {formatting.format_figure((share - 1) * 100)} %"
    return f"with {formatting.format_figure(share)} times its limit"
