"""`outcome.json`: what one trial came to. The field list is interface, schema 2."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from tune.records.attempt_record import Phases
from tune.spec.base import FrozenModel


class Percentiles(FrozenModel):
    """Of one latency, in seconds, over the answered requests of a probe."""

    mean: float
    p50: float
    p90: float
    p95: float
    p97: float
    p99: float
    p99_9: float
    max: float


class CapacityQps(FrozenModel):
    """Bracket of the highest rate that holds the SLO, by runs of full length; None where none bounds it.

    `estimate`: the rate that should hold in half of all orders of lengths, where it was searched for.
    `prefill`, `decode`: what each pool could hold were the other no limit. `censored`: the deployment was
    given up as clearly below the rate `early_stop`, before any of them held.
    """

    low: float | None
    high: float | None
    censored: bool
    estimate: float | None = None
    prefill: float | None = None
    decode: float | None = None
    early_stop: float | None = None


class Constraints(FrozenModel):
    """ln(p99 / budget): at most 0 holds; None where the limit is lifted or nothing was measured."""

    ttft_p99: float | None
    tpot_p99: float | None


class Breakdown(FrozenModel):
    """Where time goes (s) and how full the pools are; None where not recorded.

    The five stages are means over requests and sum to the mean TTFT; with `tail_` they are means over the
    slowest first tokens, which make the p99. The front end's parts: `frontend_in_s` of `queue_s`,
    `frontend_out_s` of `first_step_s`. `tail_prefill_uncontended_s` is the part of `tail_prefill_s` that the
    prompts would take on idle workers. Pool figures are means over workers and time, with `_most` those of
    the fullest worker; `decode_slots_frac` is `decode_batch` over the sequences that a worker may hold. Of a
    live deployment only pool figures are known (tune/analysis/worker_utilisation.py).
    """

    queue_s: float | None
    prefill_s: float | None
    transfer_s: float | None
    slot_s: float | None
    first_step_s: float | None
    prefill_utilisation: float | None
    decode_batch: float | None
    kv_used_frac: float | None
    tail_queue_s: float | None = None
    tail_prefill_s: float | None = None
    tail_transfer_s: float | None = None
    tail_slot_s: float | None = None
    tail_first_step_s: float | None = None
    frontend_in_s: float | None = None
    frontend_out_s: float | None = None
    tail_frontend_in_s: float | None = None
    tail_frontend_out_s: float | None = None
    tail_prefill_uncontended_s: float | None = None
    decode_slots_frac: float | None = None
    prefill_utilisation_max: float | None = None
    decode_batch_max: float | None = None
    kv_used_frac_max: float | None = None


class LatencySpread(FrozenModel):
    """Of one p99 over several orders of prompt lengths, in seconds."""

    mean: float
    sd: float
    min: float
    max: float


class ShuffleSpread(FrozenModel):
    """Hold the spread of a probe over `shuffles` shuffles of the prompt lengths, its own included.

    `slo_held` counts the shuffles in which the SLO held.
    """

    shuffles: int
    slo_held: int
    ttft_p99_s: LatencySpread | None
    tpot_p99_s: LatencySpread | None


BottleneckKind = Literal[
    "prefill", "decode_slots", "decode_kv", "decode_step_time", "kv_transfer", "frontend", "rate", "unknown"
]
"""What keeps a probe from more tokens/s under its SLO; "rate": nothing but the rate that was offered."""


class Recommendation(FrozenModel):
    """One thing to try, in words and as overrides; without overrides where no setting does it alone."""

    text: str
    overrides: tuple[str, ...] = ()


class Bottleneck(FrozenModel):
    """What binds, the figures that say so, and what would relieve it."""

    kind: BottleneckKind
    evidence: str
    recommendations: tuple[Recommendation, ...]


class Probe(FrozenModel):
    """One LoadGen run on a live deployment. `raw` is its folder, relative to the trial's.

    `full`: it was to be the run that the load asks for; others ask a sample of its requests. `stopped`: it
    was given up when it could hold its SLO no more, and its figures are those of the requests until then.
    """

    target_qps: float
    queries: int
    valid: bool
    feasible: bool
    output_tps_per_gpu: float | None
    output_tps: float | None
    loadgen_tps: float | None
    completed_qps: float | None
    ttft_s: Percentiles | None
    tpot_s: Percentiles | None
    latency_s: Percentiles | None
    constraints: Constraints
    breakdown: Breakdown | None
    loadgen_result: Literal["VALID", "INVALID"] | None
    reason: str | None
    raw: str
    spread: ShuffleSpread | None = None
    bottleneck: Bottleneck | None = None
    full: bool = True
    stopped: bool = False


class Attempt(FrozenModel):
    """One try at a trial; times are ISO 8601 in UTC. `phases` is None where they are not on record."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    started_at: str
    ended_at: str
    gpu_hours: float
    class_: Literal["measured", "infeasible", "failed"] = Field(alias="class")
    phases: Phases | None = None


class Outcome(FrozenModel):
    """The record of a trial. Absent figures are None; `reason` says why, for people."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    schema_: Literal[2] = Field(2, alias="schema")
    trial_id: str
    number: int
    source: str
    status: Literal["measured", "infeasible", "failed"]
    reason: str | None
    valid: bool
    feasible: bool
    output_tps_per_gpu: float | None
    output_tps: float | None
    loadgen_tps: float | None
    gpus: int
    target_qps: float
    completed_qps: float | None
    capacity_qps: CapacityQps
    ttft_s: Percentiles | None
    tpot_s: Percentiles | None
    latency_s: Percentiles | None
    constraints: Constraints
    probes: tuple[Probe, ...]
    breakdown: Breakdown | None
    attempts: tuple[Attempt, ...]
    gpu_hours: float
    wall_s: float
    provenance: dict[str, Any]
    spread: ShuffleSpread | None = None
    bottleneck: Bottleneck | None = None
