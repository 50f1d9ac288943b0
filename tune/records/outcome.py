"""Define `outcome.json`, the record of one trial. Its field list is an interface, schema 2."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field

from tune.records.accuracy import Accuracy
from tune.records.attempt_record import Phases
from tune.records.capacity_search import ForecastPoint
from tune.records.model_error import ModelError
from tune.records.run_check import RunCheck
from tune.spec.base import FrozenModel, SparseModel, with_optional_fields
from tune.spec.failure import FailureCause, FailureEvidence
from tune.spec.load import load_text, require_rate
from tune.spec.metrics import (
    FURTHER_LIMITS,
    LATENCIES,
    LIMITS,
    RATES,
    STATISTICS,
    LatencyLimit,
    LatencyMetric,
)


class LoadGenPercentiles(SparseModel):
    """Hold the statistics of one latency in seconds that LoadGen's logs state."""

    mean: float
    p50: float
    p90: float
    p95: float
    p97: float
    p99: float
    p99_9: float
    max: float


if TYPE_CHECKING:

    class Percentiles(LoadGenPercentiles):
        """Hold the statistics of one latency in seconds, over the answered requests of a probe.

        Statistics of tune.spec.metrics that LoadGen does not state are fields by their names.
        """

else:
    Percentiles = with_optional_fields(
        LoadGenPercentiles,
        "Percentiles",
        (statistic.name for statistic in STATISTICS if statistic.name not in LoadGenPercentiles.model_fields),
        float,
    )


LATENCY_FIELDS = {latency.field: Annotated[Percentiles | None, Field(default=None)] for latency in LATENCIES}
"""Annotations of the fields that hold the latencies of a run, None where one was not measured."""


def _rates_beside(annotations: Mapping[str, Any]) -> dict[str, Any]:
    """Return annotations of figures of throughput that a record does not name; absent where not measured."""
    names = (rate.name for rate in RATES if rate.name not in annotations)
    absent = Field(default=None, exclude_if=lambda figure: figure is None)
    return dict.fromkeys(names, Annotated[float | None, absent])


class LatencyRecord(FrozenModel):
    """Give the statistics of the latencies of a run; a subclass places LATENCY_FIELDS among its fields."""

    if TYPE_CHECKING:
        ttft_s: Percentiles | None = None
        tpot_s: Percentiles | None = None
        latency_s: Percentiles | None = None

    def statistics_of(self, latency: LatencyMetric) -> Percentiles | None:
        """Return the statistics of a latency, None where it was not measured."""
        statistics: Percentiles | None = getattr(self, latency.field)
        return statistics


class RunRecord(LatencyRecord):
    """Give the load of a run: the rate `target_qps`, or in a closed loop the number of its users."""

    if TYPE_CHECKING:
        target_qps: float | None
        concurrency: int | None = None

    @property
    def offered_qps(self) -> float:
        """Return the rate of the run, queries/s; of a closed loop, which has none, ValueError."""
        return require_rate(self.target_qps)

    @property
    def load(self) -> str:
        """Return the load of the run in words: its rate, or the users of a closed loop."""
        return load_text(self.target_qps, self.concurrency)


class CapacityQps(FrozenModel):
    """Hold estimates of and limits on a deployment's capacity, in queries/s.

    `low` is the verified rate, the highest that held in a run of full length; `high` is the lowest above it
    that missed. Each is None where no run bounds it. `estimate` is the rate at which the SLO is estimated
    to hold in half of all shuffles, where a search looked for it. `prefill` and `decode` are the pool
    capacities. `stopped_early`: the deployment was stopped, as it is clearly below the rate `early_stop`.
    `range` is the range of rates in which the search began; it goes on beyond an end that is no answer.
    """

    low: float | None
    high: float | None
    stopped_early: bool
    estimate: float | None = None
    prefill: float | None = None
    decode: float | None = None
    early_stop: float | None = None
    range: tuple[float, float] | None = None


class LoadGenConstraints(SparseModel):
    """Hold ln(figure / limit) of each limit by its name in tune.spec.metrics; at most 0 holds.

    The two of LoadGen's limits are always present, None where the limit is lifted or nothing was measured.
    Those of further limits are absent then.
    """

    ttft_p99: float | None
    tpot_p99: float | None

    @property
    def used(self) -> dict[LatencyLimit, float]:
        """Return the share of each limit that its figure uses, in the order of LIMITS."""
        logs = {limit: getattr(self, limit.name, None) for limit in LIMITS}
        return {limit: math.exp(log) for limit, log in logs.items() if log is not None}

    def worst(self) -> float | None:
        """Return the largest constraint, None without one."""
        logs = (getattr(self, limit.name, None) for limit in LIMITS)
        return max((log for log in logs if log is not None), default=None)


if TYPE_CHECKING:

    class Constraints(LoadGenConstraints):
        """Hold ln(figure / limit); further limits are fields by their names in tune.spec.metrics."""

else:
    Constraints = with_optional_fields(
        LoadGenConstraints, "Constraints", (limit.name for limit in FURTHER_LIMITS), float
    )


class Breakdown(FrozenModel):
    """Hold the stages of requests in seconds and the utilisation of the pools; None where not recorded.

    The five stages are means over requests and sum to the mean TTFT. With the prefix `tail_` they are means
    over the slowest first tokens, which make the p99. `frontend_in_s` is the frontend's part of `queue_s`,
    `frontend_out_s` that of `first_step_s`. `tail_prefill_uncontended_s` is the part of `tail_prefill_s`
    that the prompts would take on idle workers. Pool figures are means over workers and time; with the
    suffix `_max` they are those of the fullest worker. `decode_slots_frac` is `decode_batch` over the
    sequences that a worker may hold. A live deployment records pool figures only
    (tune/analysis/worker_utilisation.py).
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
    """Hold the spread of one figure over several shuffles of the prompt lengths, in seconds."""

    mean: float
    sd: float
    min: float
    max: float


class LoadGenSpread(SparseModel):
    """Hold the spread of a probe over `shuffles` shuffles of the prompt lengths, its own included.

    `slo_met` counts the shuffles in which the SLO held. Each figure of the SLO has its spread, by the
    limit's key in tune.spec.metrics; those of further limits are absent where the study lifts them.
    """

    shuffles: int
    slo_met: int
    ttft_p99_s: LatencySpread | None
    tpot_p99_s: LatencySpread | None

    def of(self, limit: LatencyLimit) -> LatencySpread | None:
        """Return the spread of the figure of a limit, None where it is not recorded."""
        spread: LatencySpread | None = getattr(self, limit.key, None)
        return spread


if TYPE_CHECKING:

    class ShuffleSpread(LoadGenSpread):
        """Hold the spread of a probe; further limits are fields by their keys in tune.spec.metrics."""

else:
    ShuffleSpread = with_optional_fields(
        LoadGenSpread, "ShuffleSpread", (limit.key for limit in FURTHER_LIMITS), LatencySpread
    )


BottleneckKind = Literal[
    "prefill", "decode_slots", "decode_kv", "decode_step_time", "kv_transfer", "frontend", "rate", "users",
    "unknown",
]  # fmt: skip
"""What keeps a probe from more tokens/s under its SLO; "rate" means nothing but the offered rate, "users"
nothing but the users of a closed loop."""


class Recommendation(FrozenModel):
    """Hold one thing to try, in words and as overrides; none where no setting alone does it."""

    text: str
    overrides: tuple[str, ...] = ()


class Bottleneck(FrozenModel):
    """Hold the bottleneck of a probe, the figures that show it, and recommendations."""

    kind: BottleneckKind
    evidence: str
    recommendations: tuple[Recommendation, ...]


class Probe(RunRecord):
    """Hold one LoadGen run on a live deployment; `raw` is its folder, relative to the trial's.

    `full` says that the probe was the run of full length; others are short runs of a part of its requests.
    `stopped` says that it ended when it could no longer hold its SLO; its figures are those of the requests
    until then. `may_pass` says of an invalid probe that another run of the same plan may be valid.
    `checks` say whether what was measured is what was meant; they are absent for a simulated run.
    """

    target_qps: float | None
    concurrency: int | None = Field(default=None, exclude_if=lambda users: users is None)
    queries: int
    valid: bool
    feasible: bool
    output_tps_per_gpu: float | None
    output_tps: float | None
    loadgen_tps: float | None
    completed_qps: float | None
    __annotations__ |= _rates_beside(__annotations__) | LATENCY_FIELDS
    constraints: Constraints
    breakdown: Breakdown | None
    loadgen_result: Literal["VALID", "INVALID"] | None
    reason: str | None
    raw: str
    spread: ShuffleSpread | None = None
    bottleneck: Bottleneck | None = None
    full: bool = True
    stopped: bool = False
    may_pass: bool = Field(default=False, exclude_if=lambda may_pass: not may_pass)
    checks: tuple[RunCheck, ...] = Field(default=(), exclude_if=lambda checks: not checks)


class Attempt(FrozenModel):
    """Hold one try at a trial; times are ISO 8601 in UTC, `phases` is None where not recorded.

    `cause` is the class of a failure and `evidence` the line that tells it; absent where there is none.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    started_at: str
    ended_at: str
    gpu_hours: float
    class_: Literal["measured", "infeasible", "failed"] = Field(alias="class")
    cause: FailureCause | None = Field(default=None, exclude_if=lambda cause: cause is None)
    evidence: FailureEvidence | None = Field(default=None, exclude_if=lambda evidence: evidence is None)
    phases: Phases | None = None


class Outcome(RunRecord):
    """Hold the record of a trial; absent figures are None, and `reason` says why in words.

    `model_error` is that of the simulator, None where the trial was measured on a real rack. `forecast` holds
    what a capacity search expects of full runs, by rate; it is empty where the rate was not searched.
    `accuracy` is absent where no accuracy run was made. `checks` are those of the probe that is judged.
    """

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
    target_qps: float | None
    concurrency: int | None = Field(default=None, exclude_if=lambda users: users is None)
    completed_qps: float | None
    capacity_qps: CapacityQps
    __annotations__ |= _rates_beside(__annotations__) | LATENCY_FIELDS
    constraints: Constraints
    probes: tuple[Probe, ...]
    breakdown: Breakdown | None
    attempts: tuple[Attempt, ...]
    gpu_hours: float
    wall_s: float
    provenance: dict[str, Any]
    spread: ShuffleSpread | None = None
    bottleneck: Bottleneck | None = None
    model_error: ModelError | None = None
    forecast: tuple[ForecastPoint, ...] = ()
    accuracy: Accuracy | None = Field(default=None, exclude_if=lambda accuracy: accuracy is None)
    checks: tuple[RunCheck, ...] = Field(default=(), exclude_if=lambda checks: not checks)
