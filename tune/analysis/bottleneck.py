"""What keeps a probe from more tokens/s under its SLO, by what was measured; any figure may be missing.

A limit binds where its p99 is near it or over it. The p99 of TTFT is made by the slowest first tokens, so
what binds TTFT is the stage that takes most of their time; TPOT is the time of a decode step. A rack that
completes less than it is offered is bound by the stage whose wait grows, whatever the limits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tune.analysis.breakdown import TAIL_FRAC, decode_slots
from tune.analysis.recommendations import BottleneckContext, recommend
from tune.analysis.shuffles import NEAR_FRAC
from tune.engines.kv_capacity import decode_batch_that_kv_holds
from tune.records.outcome import Bottleneck, BottleneckKind, Breakdown, Constraints
from tune.spec.trial import TrialSpec

SATURATED_FRAC = 0.97
SATURATED_SIGMAS = 3.0
"""A run that completes less than this share of the offered rate is saturated, unless so few queries count
that their number strays as far by chance: 1 / sqrt(n) (sd) for Poisson arrivals. At least half of all count:
warm-up ends by then. Our choice."""

BUSY_FRAC = 2 / 3
"""Share of busy time above which a worker's queue costs more than its service: the mean wait of M/D/1 over
its service time is rho / (2 (1 - rho)), which is 1 at 2/3. Source: Pollaczek-Khinchine formula."""

FULL_FRAC = 0.9
"""A decode worker that holds this share of what it may hold, as a mean over time, is full when it counts."""

UNEVEN_FRAC = 0.1
"""How far the fullest worker lies above the mean before that is worth a word; our choice."""

_STAGE_WORDS = {
    "frontend": "is the front end's",
    "queue": "is waiting for a prefill worker or sharing it with other prompts",
    "prefill": "is the prefill of their own prompts",
    "transfer": "is the KV transfer",
    "slot": "is waiting for a decode slot",
    "first_step": "is the first decode step",
}


@dataclass(frozen=True)
class ProbeSummary:
    """What a probe measured; rates in queries/s, `saturated_qps` is that of completions where the rack
    is saturated, else None."""

    target_qps: float
    saturated_qps: float | None
    constraints: Constraints
    breakdown: Breakdown | None

    @property
    def used(self) -> dict[str, float]:
        """Share of each limit that its p99 uses; `constraints` holds ln(p99 / limit)."""
        logs = {"TTFT": self.constraints.ttft_p99, "TPOT": self.constraints.tpot_p99}
        return {name: math.exp(log) for name, log in logs.items() if log is not None}


def is_saturated(target_qps: float, completed_qps: float | None, queries: int) -> bool:
    """Whether a rack that was offered `queries` queries at a rate completed too few of them a second."""
    strays_frac = SATURATED_SIGMAS / math.sqrt(queries / 2)
    return completed_qps is not None and completed_qps < target_qps * min(SATURATED_FRAC, 1 - strays_frac)


def find_bottleneck(spec: TrialSpec, probe: ProbeSummary) -> Bottleneck:
    """What binds, why, and what would relieve it."""
    limit = max(probe.used, key=lambda name: probe.used[name], default=None)
    stage: str | None = None
    if not probe.saturated_qps is not None and (limit is None or probe.used[limit] < 1 - NEAR_FRAC):
        binds: BottleneckKind = "rate"
        evidence = _slack(probe)
    elif limit == "TPOT" and probe.saturated_qps is None:
        binds = _step(spec, probe.breakdown)
        evidence = [_tight(probe, limit), *_decode_figures(spec, probe.breakdown)]
    else:
        stage, share = _largest_stage(probe.breakdown)
        binds = _of_stage(spec, stage, probe.breakdown)
        evidence = [_tight(probe, limit), *_stage_figures(spec, binds, stage, share, probe.breakdown)]
    broken = probe.saturated_qps is not None or any(share > 1 for share in probe.used.values())
    bound = BottleneckContext(
        binds, stage, probe.target_qps, probe.saturated_qps, probe.used, broken, probe.breakdown
    )
    return Bottleneck(binds=binds, evidence="; ".join(evidence), relief=recommend(spec, bound))


def _largest_stage(use: Breakdown | None) -> tuple[str | None, float]:
    """The stage that takes most of the slowest first tokens, and its share of them; None where unknown."""
    if use is None or use.tail_queue_s is None:
        return None, 0.0
    before_s, after_s = use.tail_frontend_in_s or 0.0, use.tail_frontend_out_s or 0.0
    prefill_s = use.tail_prefill_s or 0.0
    alone_s = prefill_s if use.tail_prefill_alone_s is None else use.tail_prefill_alone_s
    times = {
        "frontend": before_s + after_s,
        "queue": use.tail_queue_s - before_s + prefill_s - alone_s,
        "prefill": alone_s,
        "transfer": use.tail_transfer_s or 0.0,
        "slot": use.tail_slot_s or 0.0,
        "first_step": (use.tail_first_step_s or 0.0) - after_s,
    }
    stage = max(times, key=lambda name: times[name])
    return stage, times[stage] / max(sum(times.values()), 1e-9)


def _of_stage(spec: TrialSpec, stage: str | None, use: Breakdown | None) -> BottleneckKind:
    """Without stages, the pool that is full binds; the decode pool holds up a prefill pool that idles."""
    full, busy = _decode_full_frac(spec, use), None if use is None else use.prefill_utilisation
    if stage == "slot":
        return _slots_or_kv(spec, use)
    if stage in ("queue", None) and busy is not None and busy < BUSY_FRAC and full >= FULL_FRAC:
        return _slots_or_kv(spec, use)
    if stage is None:
        return "prefill" if busy is not None and busy >= BUSY_FRAC else "unknown"
    named: dict[str, BottleneckKind] = {
        "frontend": "frontend",
        "queue": "prefill",
        "prefill": "prefill",
        "transfer": "kv_transfer",
        "first_step": "decode_step_time",
    }
    return named[stage]


def _step(spec: TrialSpec, use: Breakdown | None) -> BottleneckKind:
    """TPOT is the step time, unless sequences are paused, as MAX_UTILIZATION does when the cache is full."""
    full = use is not None and (use.kv_used_frac_most or 0.0) >= FULL_FRAC
    paused = full and spec.decode.batching == "evict_newest"
    return "decode_kv" if paused else "decode_step_time"


def _kv_batch(spec: TrialSpec) -> int:
    return decode_batch_that_kv_holds(spec)


def _slots_or_kv(spec: TrialSpec, use: Breakdown | None) -> BottleneckKind:
    """A batch that came to its limit was held by it; else the smaller of both limits held it."""
    slots = decode_slots(spec.decode)
    reached = use is not None and (use.decode_batch_most or 0.0) >= FULL_FRAC * slots
    return "decode_slots" if reached or slots <= _kv_batch(spec) else "decode_kv"


def _decode_full_frac(spec: TrialSpec, use: Breakdown | None) -> float:
    if use is None or use.decode_batch_most is None:
        return 0.0
    return use.decode_batch_most / max(min(decode_slots(spec.decode), _kv_batch(spec)), 1)


def _slack(probe: ProbeSummary) -> list[str]:
    if not probe.used:
        return ["no limit is set, and the rack completes what it is offered"]
    shares = " and ".join(f"p99 {name} uses {_percent(share)}" for name, share in probe.used.items())
    return [f"{shares} of its limit: another order of lengths would hardly break one"]


def _tight(probe: ProbeSummary, limit: str | None) -> str:
    if probe.saturated_qps is not None:
        return f"the rack completes {probe.saturated_qps:.3g} of {probe.target_qps:.4g} queries/s offered"
    assert limit is not None
    return f"p99 {limit} uses {_percent(probe.used[limit])} of its limit"


def _stage_figures(
    spec: TrialSpec, binds: BottleneckKind, stage: str | None, share: float, use: Breakdown | None
) -> list[str]:
    told = []
    if stage is not None:
        told.append(
            f"{_percent(share)} of the slowest {_percent(TAIL_FRAC)} of first tokens {_STAGE_WORDS[stage]}"
        )
    elif binds == "unknown":
        told.append("no record says where the time goes")
    if binds in ("prefill", "unknown") and use is not None and use.prefill_utilisation is not None:
        told.append(f"prefill workers are busy {_percent(use.prefill_utilisation)} of the time")
        most = use.prefill_utilisation_most
        if most is not None and most > (1 + UNEVEN_FRAC) * use.prefill_utilisation:
            told.append(f"the busiest one {_percent(most)}")
    if binds in ("decode_slots", "decode_kv", "decode_step_time", "unknown"):
        told += _decode_figures(spec, use)
    return told


def _decode_figures(spec: TrialSpec, use: Breakdown | None) -> list[str]:
    slots, kv_batch = decode_slots(spec.decode), _kv_batch(spec)
    told = []
    if use is not None and use.decode_batch is not None:
        told.append(
            f"a decode worker holds {use.decode_batch:.0f} sequences on average, its KV cache has room for "
            f"about {kv_batch} and its settings for {slots}"
        )
        most = use.decode_batch_most
        if most is not None and most > (1 + UNEVEN_FRAC) * use.decode_batch:
            told.append(f"the fullest one holds {most:.0f}, as a slower one would")
    return told


def _percent(share: float) -> str:
    return f"{share * 100:,.0f} %"
