"""What would relieve a binding constraint: concrete settings where the figures allow them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tune.analysis.breakdown import decode_slots
from tune.engines.base import Remedy
from tune.engines.kv_capacity import decode_batch_that_kv_holds
from tune.engines.registry import engine_of
from tune.records.outcome import BottleneckKind, Breakdown, Recommendation
from tune.spec.split import Role, Split, place_workers
from tune.spec.trial import TrialSpec

RATE_STEP_FRAC = 0.05
"""By how much to move the rate at a time. Our choice: the last quarter of the TTFT limit of the reference
configuration is worth about as much."""

ROOM_FRAC = 0.9
"""How full the pool that gives up a worker may become; above, waiting there takes over. Our choice."""

BATCH_STEP = 1.5
"""By what factor to widen the decode batch at a time; our choice."""


@dataclass(frozen=True)
class BottleneckContext:
    """What binds, at which stage of a request, and the figures around it; `used` as shares of the limits.

    `broken`: a limit is broken or the rack is saturated, then at `saturated_qps`, else None.
    """

    binds: BottleneckKind
    stage: str | None
    target_qps: float
    saturated_qps: float | None
    used: dict[str, float]
    broken: bool
    breakdown: Breakdown | None


def recommend(spec: TrialSpec, bound: BottleneckContext) -> tuple[Recommendation, ...]:
    """What to try, the likeliest first. Overrides are for the configuration of `spec`.

    A lower rate relieves everything: it is named where a limit is broken, or where nothing else is known.
    """
    if bound.binds == "rate":
        return (_rate(bound.target_qps * (1 + RATE_STEP_FRAC), "a higher rate"),)
    settings = {
        "prefill": _for_prefill,
        "decode_slots": _for_slots,
        "decode_kv": _for_kv,
        "decode_step_time": _for_step,
        "kv_transfer": _for_transfer,
        "frontend": _for_frontend,
        "unknown": _for_unknown,
    }[bound.binds](spec, bound)
    tried = tuple(settings)
    if tried and not bound.broken:
        return tried
    return (*tried, _rate((bound.saturated_qps or bound.target_qps) * (1 - RATE_STEP_FRAC), "a lower rate"))


def _rate(qps: float, words: str) -> Recommendation:
    return Recommendation(text=words, overrides=(f"load.target_qps={qps:.3g}",))


def _for_prefill(spec: TrialSpec, bound: BottleneckContext) -> Iterator[Recommendation]:
    engine = engine_of(spec)
    if bound.stage == "prefill":
        yield from engine.recommend(spec, Remedy("larger_worker", "prefill"))
        return
    if spec.stack.router_mode == "random":
        yield Recommendation(text="prompts dealt round-robin", overrides=("stack.router_mode=round-robin",))
    yield from _one_more(spec, bound, "prefill")
    yield from engine.recommend(spec, Remedy("larger_chunks", "prefill"))


def _for_slots(spec: TrialSpec, bound: BottleneckContext) -> Iterator[Recommendation]:
    slots = decode_slots(spec.decode)
    kv_batch = decode_batch_that_kv_holds(spec)
    yield from _for_any_batch(spec, bound)
    wider = min(kv_batch, int(slots * BATCH_STEP))
    if wider > slots and bound.used.get("TPOT", 0.0) < ROOM_FRAC:
        yield from engine_of(spec).recommend(spec, Remedy("wider_batch", batch=wider))
    yield from _one_more(spec, bound, "decode")


def _for_kv(spec: TrialSpec, bound: BottleneckContext) -> Iterator[Recommendation]:
    yield from _for_any_batch(spec, bound)
    yield from _one_more(spec, bound, "decode")
    yield from engine_of(spec).recommend(spec, Remedy("more_kv_cache"))


def _for_step(spec: TrialSpec, bound: BottleneckContext) -> Iterator[Recommendation]:
    yield from _for_any_batch(spec, bound)
    yield from _one_more(spec, bound, "decode")
    yield from engine_of(spec).recommend(spec, Remedy("larger_worker", "decode"))


def _for_any_batch(spec: TrialSpec, bound: BottleneckContext) -> Iterator[Recommendation]:
    """What keeps a batch smaller or its steps longer than they need be."""
    batch = bound.breakdown.decode_batch_most if bound.breakdown else None
    yield from engine_of(spec).recommend(spec, Remedy("fuller_batches", batch=batch))


def _for_transfer(spec: TrialSpec, bound: BottleneckContext) -> Iterator[Recommendation]:
    yield from engine_of(spec).recommend(spec, Remedy("faster_transfers"))


def _for_frontend(spec: TrialSpec, bound: BottleneckContext) -> Iterator[Recommendation]:
    yield Recommendation(text="a front end with more CPU, or several")


def _for_unknown(spec: TrialSpec, bound: BottleneckContext) -> Iterator[Recommendation]:
    yield Recommendation(text="workers that record when prefill, transfer and decode begin and end")


def _one_more(spec: TrialSpec, bound: BottleneckContext, role: Role) -> Iterator[Recommendation]:
    """One more worker of a pool, on idle GPUs or from the other pool where that has room for it."""
    split = _shifted(spec, role)
    if split is None:
        return
    had, left = _of_other(spec.split, role), _of_other(split, role)
    if had != left and not _has_room(spec, bound, role, had / left):
        return
    yield Recommendation(
        text=f"one more {role} worker, {split.label}",
        overrides=(
            f"split.prefill_workers={split.prefill_workers}",
            f"split.decode_workers={split.decode_workers}",
        ),
    )


def _shifted(spec: TrialSpec, role: Role) -> Split | None:
    """The split with one more worker of `role` and as many of the other pool as then fit, one at least."""
    more = getattr(spec.split, f"{role}_workers") + 1
    other: Literal["prefill_workers", "decode_workers"] = (
        "decode_workers" if role == "prefill" else "prefill_workers"
    )
    for count in range(_of_other(spec.split, role), 0, -1):
        split = spec.split.model_copy(update={f"{role}_workers": more, other: count})
        if place_workers(spec.hardware, spec.prefill, spec.decode, split):
            return split
    return None


def _of_other(split: Split, role: Role) -> int:
    return split.decode_workers if role == "prefill" else split.prefill_workers


def _has_room(spec: TrialSpec, bound: BottleneckContext, role: Role, load: float) -> bool:
    """Whether the other pool, `load` times as busy a worker, stays within ROOM_FRAC; True where unknown.

    Prefill work per worker grows by `load`; a decode batch at least so, as longer steps keep answers longer.
    """
    use = bound.breakdown
    if use is None:
        return True
    if role == "decode":
        return use.prefill_utilisation is None or use.prefill_utilisation * load <= ROOM_FRAC
    kv_batch = decode_batch_that_kv_holds(spec)
    held = min(decode_slots(spec.decode), kv_batch)
    return use.decode_batch is None or use.decode_batch * load <= ROOM_FRAC * held
