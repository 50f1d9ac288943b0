"""Recommend changes against a bottleneck, as concrete settings where the figures allow them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tune.analysis.breakdown import decode_slots
from tune.engines.base import Remedy
from tune.engines.kv_capacity import decode_batch_that_kv_holds
from tune.engines.registry import engine_of
from tune.records.outcome import BottleneckKind, Breakdown, Recommendation
from tune.spec.load import Load
from tune.spec.metrics import LatencyLimit
from tune.spec.split import Role, Split, place_workers
from tune.spec.trial import TrialSpec

RATE_STEP_FRAC = 0.05
"""Share by which a recommendation moves the rate.

Chosen here: the last quarter of the TTFT limit of the reference configuration is worth about as much.
"""

ROOM_FRAC = 0.9
"""Utilisation up to which a pool may lose a worker; above it, waiting there takes over. Chosen here."""

BATCH_STEP = 1.5
"""Factor by which a recommendation widens the decode batch; chosen here."""


@dataclass(frozen=True)
class BottleneckContext:
    """Hold a bottleneck, the stage of a request at which it lies, and the figures around it.

    `used` holds the share of each limit that is used. `broken` says that a limit is violated or that the
    rack is saturated; `saturated_qps` is its rate of completions then, else None.
    """

    kind: BottleneckKind
    stage: str | None
    target_qps: float | None
    saturated_qps: float | None
    used: dict[LatencyLimit, float]
    broken: bool
    breakdown: Breakdown | None

    @property
    def step_used(self) -> float:
        """Return the largest share of a limit that grows with the decode step time, 0 without one."""
        shares = (share for limit, share in self.used.items() if limit.latency.spent_in != "prefill")
        return max(shares, default=0.0)


def recommend(spec: TrialSpec, context: BottleneckContext) -> tuple[Recommendation, ...]:
    """Return recommendations, the most promising first; overrides are for the configuration `spec`.

    A lower rate helps against every bottleneck. It is named where a limit is violated.
    """
    if context.kind in ("rate", "users"):
        return (_more_load(spec.load, context.target_qps),)
    settings = {
        "prefill": _for_prefill,
        "decode_slots": _for_slots,
        "decode_kv": _for_kv,
        "decode_step_time": _for_step,
        "kv_transfer": _for_transfer,
        "frontend": _for_frontend,
        "unknown": _for_unknown,
    }[context.kind](spec, context)
    changes = tuple(settings)
    if not context.broken:
        return changes
    return (*changes, lower_load(spec.load, context.saturated_qps or context.target_qps))


def lower_load(load: Load, qps: float | None) -> Recommendation:
    """Return the recommendation of a rate one step below `qps`, or in a closed loop of fewer users."""
    if load.concurrency is not None:
        return _users(math.floor(load.concurrency * (1 - RATE_STEP_FRAC)), "fewer users")
    return _rate((qps or load.offered_qps) * (1 - RATE_STEP_FRAC), "a lower rate")


def _more_load(load: Load, qps: float | None) -> Recommendation:
    """Return the recommendation of a rate one step above `qps`, or in a closed loop of more users."""
    if load.concurrency is not None:
        return _users(math.ceil(load.concurrency * (1 + RATE_STEP_FRAC)), "more users")
    return _rate((qps or load.offered_qps) * (1 + RATE_STEP_FRAC), "a higher rate")


def _users(users: int, text: str) -> Recommendation:
    """Return the recommendation of another number of users, at least one."""
    return Recommendation(text=text, overrides=(f"load.concurrency={max(users, 1)}",))


def _rate(qps: float, text: str) -> Recommendation:
    """Return the recommendation of another rate."""
    return Recommendation(text=text, overrides=(f"load.target_qps={qps:.3g}",))


def _for_prefill(spec: TrialSpec, context: BottleneckContext) -> Iterator[Recommendation]:
    """Yield changes to a prefill pool that limits."""
    engine, role = engine_of(spec), spec.pools[0].role
    if context.stage == "prefill":
        yield from engine.recommend(spec, Remedy("larger_worker", role))
        return
    if spec.stack.router_mode == "random":
        yield Recommendation(text="prompts dealt round-robin", overrides=("stack.router_mode=round-robin",))
    yield from _more_of(spec, context, "prefill")
    yield from engine.recommend(spec, Remedy("larger_chunks", role))


def _for_slots(spec: TrialSpec, context: BottleneckContext) -> Iterator[Recommendation]:
    """Yield changes to decode slots that limit."""
    slots = decode_slots(spec.decode)
    kv_batch = decode_batch_that_kv_holds(spec)
    yield from _for_any_batch(spec, context)
    wider = min(kv_batch, int(slots * BATCH_STEP))
    if wider > slots and context.step_used < ROOM_FRAC:
        yield from engine_of(spec).recommend(
            spec, Remedy("wider_batch", batch=wider // spec.decode.attention_ranks)
        )
    yield from _more_of(spec, context, "decode")


def _for_kv(spec: TrialSpec, context: BottleneckContext) -> Iterator[Recommendation]:
    """Yield changes to a decode KV cache that limits."""
    yield from _for_any_batch(spec, context)
    yield from _more_of(spec, context, "decode")
    yield from engine_of(spec).recommend(spec, Remedy("more_kv_cache"))


def _for_step(spec: TrialSpec, context: BottleneckContext) -> Iterator[Recommendation]:
    """Yield changes to a decode step time that limits."""
    yield from _for_any_batch(spec, context)
    if spec.split.aggregated_workers:
        yield from engine_of(spec).recommend(spec, Remedy("smaller_chunks", "aggregated"))
    yield from _more_of(spec, context, "decode")
    yield from engine_of(spec).recommend(spec, Remedy("larger_worker", spec.pools[-1].role))


def _for_any_batch(spec: TrialSpec, context: BottleneckContext) -> Iterator[Recommendation]:
    """Yield changes to what keeps a batch smaller or its steps longer than they need be."""
    batch = context.breakdown.decode_batch_max if context.breakdown else None
    if batch is not None:
        batch = math.ceil(batch / spec.decode.attention_ranks)
    yield from engine_of(spec).recommend(spec, Remedy("fuller_batches", batch=batch))


def _for_transfer(spec: TrialSpec, context: BottleneckContext) -> Iterator[Recommendation]:
    """Yield changes to a KV transfer that limits."""
    yield from engine_of(spec).recommend(spec, Remedy("faster_transfers"))


def _for_frontend(spec: TrialSpec, context: BottleneckContext) -> Iterator[Recommendation]:
    """Yield changes to a frontend that limits."""
    more = 2 * spec.split.frontends
    yield Recommendation(
        text=f"{more} frontends, or one with more CPU", overrides=(f"split.frontends={more}",)
    )


def _for_unknown(spec: TrialSpec, context: BottleneckContext) -> Iterator[Recommendation]:
    """Yield recommendations that would make the bottleneck known."""
    yield Recommendation(text="workers that record when prefill, transfer and decode begin and end")


def _more_of(spec: TrialSpec, context: BottleneckContext, role: Role) -> Iterator[Recommendation]:
    """Yield one more worker of a pool, or half of one where the other pool has no room for a whole one.

    With aggregated workers, one more fits only on idle GPUs.
    """
    if spec.split.aggregated_workers:
        yield from _one_more_aggregated(spec)
        return
    more = tuple(_one_more(spec, context, role))
    halves = 2 * _other_workers(spec.split, role)
    if not more and _has_room(spec, context, role, halves / (halves - 1)):
        more = tuple(engine_of(spec).recommend(spec, Remedy("smaller_workers", role)))
    yield from more


def _one_more_aggregated(spec: TrialSpec) -> Iterator[Recommendation]:
    """Yield one more aggregated worker, where it fits."""
    more = spec.split.aggregated_workers + 1
    split = spec.split.model_copy(update={"aggregated_workers": more})
    if place_workers(spec.hardware, spec.prefill, spec.decode, split):
        overrides = (f"split.aggregated_workers={more}",)
        yield Recommendation(text=f"one more aggregated worker, {split.label}", overrides=overrides)


def _one_more(spec: TrialSpec, context: BottleneckContext, role: Role) -> Iterator[Recommendation]:
    """Yield one more worker of a pool, on idle GPUs or from the other pool where that has room for it."""
    split = _shifted(spec, role)
    if split is None:
        return
    before, after = _other_workers(spec.split, role), _other_workers(split, role)
    if before != after and not _has_room(spec, context, role, before / after):
        return
    yield Recommendation(
        text=f"one more {role} worker, {split.label}",
        overrides=(
            f"split.prefill_workers={split.prefill_workers}",
            f"split.decode_workers={split.decode_workers}",
        ),
    )


def _shifted(spec: TrialSpec, role: Role) -> Split | None:
    """Return the split with one more worker of `role` and as many others as then fit, at least one."""
    more = getattr(spec.split, f"{role}_workers") + 1
    other: Literal["prefill_workers", "decode_workers"] = (
        "decode_workers" if role == "prefill" else "prefill_workers"
    )
    for count in range(_other_workers(spec.split, role), 0, -1):
        split = spec.split.model_copy(update={f"{role}_workers": more, other: count})
        if place_workers(spec.hardware, spec.prefill, spec.decode, split):
            return split
    return None


def _other_workers(split: Split, role: Role) -> int:
    """Return how many workers the pool other than `role` has."""
    return split.decode_workers if role == "prefill" else split.prefill_workers


def _has_room(spec: TrialSpec, context: BottleneckContext, role: Role, load: float) -> bool:
    """Return whether the other pool stays within ROOM_FRAC at `load` times the work per worker.

    Prefill work per worker grows by `load`. A decode batch grows at least as much, because longer steps keep
    answers longer. The result is True where the utilisation is unknown.
    """
    use = context.breakdown
    if use is None:
        return True
    if role == "decode":
        return use.prefill_utilisation is None or use.prefill_utilisation * load <= ROOM_FRAC
    kv_batch = decode_batch_that_kv_holds(spec)
    capacity = min(decode_slots(spec.decode), kv_batch)
    return use.decode_batch is None or use.decode_batch * load <= ROOM_FRAC * capacity
