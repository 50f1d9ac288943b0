"""`outcome.json`: what one trial came to. The field list is interface, schema 1."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from tune.spec.typed import Typed


class Percentiles(Typed):
    """Of one latency, in seconds, over the answered requests of a probe."""

    mean: float
    p50: float
    p90: float
    p95: float
    p97: float
    p99: float
    p99_9: float
    max: float


class CapacityQps(Typed):
    """Bracket of the highest rate that holds the SLO; None where no probe bounds it."""

    low: float | None
    high: float | None
    censored: bool


class Constraints(Typed):
    """ln(p99 / budget): at most 0 holds; None where the limit is lifted or nothing was measured."""

    ttft_p99: float | None
    tpot_p99: float | None


class Breakdown(Typed):
    """Means over requests of where time goes (s) and over workers of how full the pools are."""

    queue_s: float | None
    prefill_s: float | None
    transfer_s: float | None
    slot_s: float | None
    first_step_s: float | None
    prefill_utilisation: float | None
    decode_batch: float | None
    kv_used_frac: float | None


class Probe(Typed):
    """One LoadGen run on a live deployment. `raw` is its folder, relative to the trial's."""

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


class Attempt(Typed):
    """One try at a trial; times are ISO 8601 in UTC."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    started_at: str
    ended_at: str
    gpu_hours: float
    class_: Literal["measured", "infeasible", "failed"] = Field(alias="class")


class Outcome(Typed):
    """The record of a trial. Absent figures are None; `reason` says why, for people."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    schema_: Literal[1] = Field(1, alias="schema")
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
