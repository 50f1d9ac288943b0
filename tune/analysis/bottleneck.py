"""Find what limits the tokens/s of a probe under its SLO; any measured figure may be missing.

A limit is the bottleneck where its figure is near it or over it. Among several, it is the one that a higher
rate breaks first: a capacity search knows by the capacities of the pools, else it follows from how fast each
figure grows. The slowest first tokens make the p99 of TTFT, so the bottleneck of TTFT is the stage that takes
most of their time; they stand for the other statistics of TTFT. TPOT is the time of a decode step. Where a
rack completes less than it is offered, the bottleneck is the stage whose wait grows, whatever the limits are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tune.analysis.breakdown import TAIL_FRAC, decode_slots
from tune.analysis.recommendations import BottleneckContext, recommend
from tune.analysis.shuffles import NEAR_FRAC
from tune.analysis.slo import share_text
from tune.engines.kv_capacity import decode_batch_that_kv_holds
from tune.records.outcome import Bottleneck, BottleneckKind, Breakdown, Constraints
from tune.spec.metrics import LatencyLimit
from tune.spec.split import Role
from tune.spec.trial import TrialSpec

SATURATED_FRAC = 0.97
SATURATED_SIGMAS = 3.0
"""Share of the offered rate below which a run is saturated, and how many standard deviations are chance.

The number of n Poisson arrivals varies by 1 / sqrt(n) (sd). At least half of all queries count, because
warm-up ends by then. Both values were chosen here.
"""

BUSY_FRAC = 2 / 3
"""Share of busy time above which a worker's queue costs more than its service.

The mean wait of M/D/1 over its service time is rho / (2 (1 - rho)), which is 1 at 2/3. Source:
Pollaczek-Khinchine formula.
"""

MIN_IDLE_FRAC = 0.01
"""Least share of idle time that is assumed; chosen here."""

MIN_USED_FRAC = 1e-6
"""Least share of a limit that is assumed to be used, so that ratios stay finite; chosen here."""

FULL_FRAC = 0.9
"""Share of what a decode worker may hold, as a mean over time, above which it counts as full at peaks."""

UNEVEN_FRAC = 0.1
"""Share by which the fullest worker exceeds the mean before the evidence mentions it; chosen here."""

_STAGE_PHRASES = {
    "frontend": "is the frontend's",
    "queue": "is waiting for a prefill worker or sharing it with other prompts",
    "prefill": "is the prefill of their own prompts",
    "transfer": "is the KV transfer",
    "slot": "is waiting for a decode slot",
    "first_step": "is the first decode step",
}


@dataclass(frozen=True)
class ProbeSummary:
    """Hold the measured figures of a probe; rates in queries/s.

    `saturated_qps` is the rate of completions where the rack is saturated, else None. `first_token_frac` is
    the share of the mean latency that passes before the first token.
    """

    target_qps: float | None
    saturated_qps: float | None
    constraints: Constraints
    breakdown: Breakdown | None
    first_token_frac: float = 0.0

    @property
    def used(self) -> dict[LatencyLimit, float]:
        """Return the share of each limit that its figure uses."""
        return self.constraints.used

    def is_decode(self, limit: LatencyLimit) -> bool:
        """Return whether decode steps make the figure of `limit` grow with the rate.

        They make TPOT. In the end-to-end latency, the time before the first token counts by how fast it
        grows: a queue whose workers idle for a share f of the time grows by about 1 / f of itself where the
        rate does (M/D/1, see BUSY_FRAC), and a step hardly faster than its batch. Where the utilisation is
        unknown, the longer part counts.
        """
        if limit.latency.spent_in != "both":
            return limit.latency.spent_in == "decode"
        busy_frac = (self.breakdown and self.breakdown.prefill_utilisation) or 0.0
        idle_frac = max(1 - busy_frac, MIN_IDLE_FRAC)
        return self.first_token_frac / idle_frac < 1 - self.first_token_frac

    def reached_at(self, limit: LatencyLimit) -> float:
        """Return the rate at which the figure of `limit` reaches it, as a ratio to the offered rate.

        The wait for a prefill worker grows as r (1 - rho) / (1 - r rho) with the ratio r, at a utilisation
        rho (M/D/1, see BUSY_FRAC). Every other figure is taken to grow as the rate does. So does a decode
        step that grows as the square root of its batch: the batch is the rate times the time of the steps.
        Measured steps grow so at batches of 128 to 256 and contexts of 8,000 tokens (Llama-3.1 405B at TP4 on
        GB200), slower at smaller ones.
        """
        used_frac = max(self.used[limit], MIN_USED_FRAC)
        stage, share = largest_stage(self.breakdown)
        if stage != "queue" or self.is_decode(limit):
            return 1 / used_frac
        before_frac = self.first_token_frac if limit.latency.spent_in == "both" else 1.0
        waited_frac = max(used_frac * before_frac * share, MIN_USED_FRAC)
        busy_frac = min((self.breakdown and self.breakdown.prefill_utilisation) or 0.0, 1 - MIN_IDLE_FRAC)
        growth = max(1 + (1 - used_frac) / waited_frac, 0.0)
        return growth / (1 - busy_frac + growth * busy_frac)


def is_saturated(target_qps: float, completed_qps: float | None, queries: int) -> bool:
    """Return whether a rack that was offered `queries` queries completes too few of them per second.

    Parameters
    ----------
    target_qps
        The offered rate.
    completed_qps
        The rate of completions, None where none was measured.
    queries
        Queries of the whole run; at least half of them count.

    Returns
    -------
    bool
    """
    chance_frac = SATURATED_SIGMAS / math.sqrt(queries / 2)
    return completed_qps is not None and completed_qps < target_qps * min(SATURATED_FRAC, 1 - chance_frac)


def find_bottleneck(
    spec: TrialSpec, probe: ProbeSummary, pool_qps: Mapping[Role, float] | None = None
) -> Bottleneck:
    """Return the bottleneck of a probe, the evidence for it, and what to change.

    Parameters
    ----------
    spec, probe
        The configuration, and the figures of the probe.
    pool_qps
        Pool capacities in queries/s; None where no capacity search found them.

    Returns
    -------
    Bottleneck
    """
    limit = _first_reached(spec, probe, pool_qps or {})
    stage: str | None = None
    if probe.saturated_qps is None and max(probe.used.values(), default=0.0) < 1 - NEAR_FRAC:
        kind: BottleneckKind = "users" if spec.load.is_closed_loop else "rate"
        evidence = _slack(spec, probe)
    elif limit is not None and probe.is_decode(limit) and probe.saturated_qps is None:
        kind = _step(spec, probe.breakdown)
        evidence = [*_tight(probe, limit, pool_qps or {}), *_decode_figures(spec, probe.breakdown)]
    else:
        stage, share = largest_stage(probe.breakdown)
        kind = _kind_of_stage(spec, stage, probe.breakdown)
        evidence = [
            *_tight(probe, limit, pool_qps or {}),
            *_stage_figures(spec, kind, stage, share, probe.breakdown),
        ]
    broken = probe.saturated_qps is not None or any(share > 1 for share in probe.used.values())
    context = BottleneckContext(
        kind, stage, probe.target_qps, probe.saturated_qps, probe.used, broken, probe.breakdown
    )
    return Bottleneck(kind=kind, evidence="; ".join(evidence), recommendations=recommend(spec, context))


def _first_reached(
    spec: TrialSpec, probe: ProbeSummary, pool_qps: Mapping[Role, float]
) -> LatencyLimit | None:
    """Return the limit that a higher rate breaks first; None without one.

    Where the capacities of the pools are known, it is one that the weaker pool breaks.
    """
    limits = list(probe.used)
    if pool_qps:
        weaker = min(pool_qps, key=lambda role: pool_qps[role])
        limits = [limit for limit in limits if _pool_of(spec, probe, limit) == weaker] or limits
        return max(limits, key=lambda limit: probe.used[limit], default=None)
    return min(limits, key=probe.reached_at, default=None)


def _pool_of(spec: TrialSpec, probe: ProbeSummary, limit: LatencyLimit) -> Role:
    """Return the pool whose work or wait makes the figure of `limit` grow."""
    stage, _ = largest_stage(probe.breakdown)
    behind = None if probe.is_decode(limit) else _kind_of_stage(spec, stage, probe.breakdown)
    return "decode" if behind in (None, "decode_slots", "decode_kv", "decode_step_time") else "prefill"


def largest_stage(use: Breakdown | None) -> tuple[str | None, float]:
    """Return the stage that takes most of the slowest first tokens, and its share; None where unknown."""
    if use is None or use.tail_queue_s is None:
        return None, 0.0
    before_s, after_s = use.tail_frontend_in_s or 0.0, use.tail_frontend_out_s or 0.0
    prefill_s = use.tail_prefill_s or 0.0
    uncontended_s = prefill_s if use.tail_prefill_uncontended_s is None else use.tail_prefill_uncontended_s
    times = {
        "frontend": before_s + after_s,
        "queue": use.tail_queue_s - before_s + prefill_s - uncontended_s,
        "prefill": uncontended_s,
        "transfer": use.tail_transfer_s or 0.0,
        "slot": use.tail_slot_s or 0.0,
        "first_step": (use.tail_first_step_s or 0.0) - after_s,
    }
    stage = max(times, key=lambda name: times[name])
    return stage, times[stage] / max(sum(times.values()), 1e-9)


def _kind_of_stage(spec: TrialSpec, stage: str | None, use: Breakdown | None) -> BottleneckKind:
    """Return the bottleneck behind the longest stage; without stages it is the pool that is full.

    A full decode pool holds up a prefill pool that idles.
    """
    full, busy = _decode_full_frac(spec, use), None if use is None else use.prefill_utilisation
    if stage == "slot":
        return _slots_or_kv(spec, use)
    if stage in ("queue", None) and busy is not None and busy < BUSY_FRAC and full >= FULL_FRAC:
        return _slots_or_kv(spec, use)
    if stage is None:
        return "prefill" if busy is not None and busy >= BUSY_FRAC else "unknown"
    kinds: dict[str, BottleneckKind] = {
        "frontend": "frontend",
        "queue": "prefill",
        "prefill": "prefill",
        "transfer": "kv_transfer",
        "first_step": "decode_step_time",
    }
    return kinds[stage]


def _step(spec: TrialSpec, use: Breakdown | None) -> BottleneckKind:
    """Return the bottleneck of TPOT: the step time, or the KV cache if sequences are paused.

    An engine that evicts the newest sequence pauses sequences when the cache is full.
    """
    full = use is not None and (use.kv_used_frac_max or 0.0) >= FULL_FRAC
    paused = full and spec.decode.batching == "evict_newest"
    return "decode_kv" if paused else "decode_step_time"


def _kv_batch(spec: TrialSpec) -> int:
    """Return how many sequences the KV cache of a decode worker holds."""
    return decode_batch_that_kv_holds(spec)


def _slots_or_kv(spec: TrialSpec, use: Breakdown | None) -> BottleneckKind:
    """Return whether slots or KV cache limit the decode batch: the limit it reached, else the smaller one."""
    slots = decode_slots(spec.decode)
    reached = use is not None and (use.decode_batch_max or 0.0) >= FULL_FRAC * slots
    return "decode_slots" if reached or slots <= _kv_batch(spec) else "decode_kv"


def _decode_full_frac(spec: TrialSpec, use: Breakdown | None) -> float:
    """Return the fullest decode batch over what a worker may hold, 0 where unknown."""
    if use is None or use.decode_batch_max is None:
        return 0.0
    return use.decode_batch_max / max(min(decode_slots(spec.decode), _kv_batch(spec)), 1)


def _slack(spec: TrialSpec, probe: ProbeSummary) -> list[str]:
    """Return the evidence that no limit is near."""
    if not probe.used:
        return ["no limit is set, and the rack completes what it is offered"]
    shares = " and ".join(f"{limit.label} uses {_percent(share)}" for limit, share in probe.used.items())
    robust = "" if spec.load.trace else ": another shuffle of the lengths would hardly break one"
    return [f"{shares} of its limit{robust}"]


def _tight(probe: ProbeSummary, limit: LatencyLimit | None, pool_qps: Mapping[Role, float]) -> list[str]:
    """Return the evidence that a limit is near or that the rack is saturated."""
    if probe.saturated_qps is not None:
        return [f"the rack completes {probe.saturated_qps:.3g} of {probe.target_qps:.4g} queries/s offered"]
    assert limit is not None
    pools = [f"{qps:.4g} of the {role} pool" for role, qps in pool_qps.items()]
    capacities = [f"pool capacity in queries/s: {' and '.join(pools)}"] if pools else []
    return [f"{limit.label} uses {share_text(probe.used[limit])} its limit", *capacities]


def _stage_figures(
    spec: TrialSpec, kind: BottleneckKind, stage: str | None, share: float, use: Breakdown | None
) -> list[str]:
    """Return the evidence by stage and by pool."""
    evidence = []
    if stage is not None:
        evidence.append(
            f"{_percent(share)} of the slowest {_percent(TAIL_FRAC)} of first tokens {_STAGE_PHRASES[stage]}"
        )
    elif kind == "unknown":
        evidence.append("no record says where the time goes")
    if kind in ("prefill", "unknown") and use is not None and use.prefill_utilisation is not None:
        does = "prefill workers are busy" if len(spec.pools) > 1 else "aggregated workers read prompts"
        evidence.append(f"{does} {_percent(use.prefill_utilisation)} of the time")
        most = use.prefill_utilisation_max
        if most is not None and most > (1 + UNEVEN_FRAC) * use.prefill_utilisation:
            evidence.append(f"the busiest one {_percent(most)}")
    if kind in ("decode_slots", "decode_kv", "decode_step_time", "unknown"):
        evidence += _decode_figures(spec, use)
    return evidence


def _decode_figures(spec: TrialSpec, use: Breakdown | None) -> list[str]:
    """Return the evidence on how full the decode workers are."""
    slots, kv_batch = decode_slots(spec.decode), _kv_batch(spec)
    evidence = []
    if use is not None and use.decode_batch is not None:
        holder = "a decode" if len(spec.pools) > 1 else "an aggregated"
        evidence.append(
            f"{holder} worker holds {use.decode_batch:.0f} sequences on average, its KV cache has room for "
            f"about {kv_batch} and its settings for {slots}"
        )
        most = use.decode_batch_max
        if most is not None and most > (1 + UNEVEN_FRAC) * use.decode_batch:
            evidence.append(f"the fullest one holds {most:.0f}, as a slower one would")
    return evidence


def _percent(share: float) -> str:
    """Return a share as whole percent."""
    return f"{share * 100:,.0f} %"
