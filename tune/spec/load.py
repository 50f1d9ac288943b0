"""Hold the load on a deployment: arrivals, duration, latency limits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from tune.core.binomial_test import min_queries
from tune.spec.base import (
    Count,
    FrozenModel,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SparseModel,
    with_optional_fields,
)
from tune.spec.dataset import Dataset
from tune.spec.metrics import FURTHER_LIMITS, LIMITS, SHOWN_LIMITS, LatencyLimit

MLPERF_SCHEDULE_SEED = 18209322760996052031
"""Source: `schedule_rng_seed` in mlperf.conf of MLPerf Inference v5.1, printed in every LoadGen log."""

SAMPLE_S = 1e-3
"""Minimum duration of a short run, in seconds: so small that it never decides the number of requests."""

QUERIES_PER_USER = 10
"""Least queries of each user of a closed loop. Source: InferenceX, which sends 10 x concurrency prompts."""

LoadGenSeed = Annotated[int, Field(ge=0, lt=2**64)]
"""A seed of LoadGen: 64 unsigned bits. Source: MLPerf Inference, loadgen/test_settings.h."""


PUBLISHED_DATASET = "mlperf-llama3.1-405b"
"""Name of the benchmark's workload, as `load=mlperf_interactive` has it."""

PUBLISHED_QPS, PUBLISHED_GPUS = 15.75, 72
"""Target of the published run, and the GPUs of its rack. Source: NVIDIA's MLPerf Inference v5.1 submission,
18-node launch, which recommends to scale the one with the other."""


def recommended_qps(gpus: int) -> float:
    """Return the target rate of the benchmark's workload for a rack of `gpus` GPUs, in queries/s."""
    return readable_qps(PUBLISHED_QPS * gpus / PUBLISHED_GPUS)


def readable_qps(qps: float) -> float:
    """Round `qps` down to four digits, so that the rate that people read is the rate of the run."""
    if qps <= 0:
        return 0.0
    digits = 3 - math.floor(math.log10(qps))
    return round(math.floor(qps * 10.0**digits) / 10.0**digits, max(digits, 0))


def load_text(target_qps: float | None, concurrency: int | None) -> str:
    """Return a load in words: a rate, or the number of users of a closed loop."""
    if concurrency is None:
        return f"{target_qps:g} queries/s"
    return f"{concurrency} user{'s' if concurrency > 1 else ''}"


def require_rate(target_qps: float | None) -> float:
    """Return a rate, queries/s. Raises ValueError for the None of a closed loop, whose answers decide it."""
    if target_qps is None:
        raise ValueError("a closed loop offers no rate")
    return target_qps


class Trace(FrozenModel):
    """Hold how the arrival times in the dataset's file are read: `time_unit` is that of its numbers."""

    time_unit: Literal["ms", "s"]


class Load(FrozenModel):
    """Hold LoadGen's Server scenario, Poisson arrivals that no backlog slows, or a closed loop.

    `seed` is "mlperf" for LoadGen's published schedule seed, or an integer. `shuffle_seed` draws the lengths
    and their shuffle. With `concatenate_permutation` (the benchmark's setting) the query count is padded to
    whole passes over the dataset; without it a run may be the beginning of a pass. `request_timeout_s` limits
    the time from sending a request to its first token, `response_timeout_s` the time from sending it to its
    last. With `api: completions` prompts go to OpenAI's completions as token ids; with `api: chat` they go to
    its chat completions as text, around which the server puts the model's template.

    With `mode: fixed` there is one run at `target_qps`. With `mode: capacity` there are several on one
    deployment, beginning near `target_qps`, for the highest rate that holds the SLO; it is found to within
    `resolution` of itself. The search begins within `rate_range_qps` (lowest, highest) and leaves it past an
    end that is no answer; a range of one rate tries that rate alone.

    With `mode: concurrency` the loop is closed: each of `concurrency` users sends the next query when the
    last answer has ended, so there is no rate and `target_qps` is None. The run ends by its number of
    queries, whatever `min_duration_s` and `concatenate_permutation` say.

    With `trace` the arrivals are those in the dataset's file instead, in their order, and a run is whole
    passes over them. All gaps are scaled by one factor, so that the mean rate is `target_qps`.

    With `accuracy` an accuracy run follows on the same deployment: every sample of the benchmark's pickle
    once, and its answer against the reference answer.
    """

    mode: Literal["fixed", "capacity", "concurrency"] = "fixed"
    resolution: Annotated[float, Field(gt=0, lt=1)] = 0.015
    rate_range_qps: tuple[PositiveFloat, PositiveFloat] | None = None
    target_qps: PositiveFloat | None
    concurrency: Count | None = Field(default=None, exclude_if=lambda users: users is None)
    min_duration_s: PositiveFloat
    min_queries: PositiveInt
    concatenate_permutation: bool
    seed: Literal["mlperf"] | LoadGenSeed
    shuffle_seed: NonNegativeInt
    client_concurrency: PositiveInt
    request_timeout_s: PositiveFloat
    response_timeout_s: PositiveFloat
    api: Literal["completions", "chat"] = "completions"
    dataset: Dataset
    trace: Trace | None = None
    accuracy: bool = Field(default=False, exclude_if=lambda accuracy: not accuracy)

    @model_validator(mode="after")
    def _loop_is_open_or_closed(self) -> Self:
        if self.is_closed_loop:
            self._require_closed_loop()
        elif self.concurrency is not None:
            raise ValueError(
                f"concurrency is {self.concurrency}, the users of a closed loop, but mode is {self.mode}; "
                "give load.mode=concurrency load.target_qps=null, or leave load.concurrency null"
            )
        elif self.target_qps is None:
            raise ValueError(
                f"target_qps is null, but mode={self.mode} sends at a rate; give load.target_qps=QPS, or "
                "load.mode=concurrency load.concurrency=USERS"
            )
        return self

    def _require_closed_loop(self) -> None:
        """Raise ValueError for a closed loop without users, or with what only an open loop has."""
        if self.concurrency is None:
            raise ValueError("mode=concurrency needs its users; give load.concurrency=USERS")
        if self.concurrency > self.client_concurrency:
            raise ValueError(
                f"concurrency is {self.concurrency}, but the client keeps {self.client_concurrency} requests "
                f"in flight; give load.client_concurrency={self.concurrency}"
            )
        open_loop = {
            "target_qps": ("the rate follows from the users", "null"),
            "rate_range_qps": ("no rate is searched for", "null"),
            "trace": ("a trace has arrivals of its own", "null"),
            "accuracy": ("an accuracy run is sent at a rate", "false"),
        }
        for name, (why, expected) in open_loop.items():
            if value := getattr(self, name):
                found = f" is {value:g}" if isinstance(value, float) else " is set"
                raise ValueError(
                    f"{name}{found}, but mode=concurrency is a closed loop: {why}; "
                    f"give load.{name}={expected}"
                )

    @model_validator(mode="after")
    def _accuracy_has_references(self) -> Self:
        if self.accuracy and not self.dataset.holds_prompts:
            raise ValueError(
                "accuracy compares answers with the reference answers of the benchmark's own prompts; give "
                "load.dataset.path=FILE.pkl, or leave load.accuracy false"
            )
        return self

    @model_validator(mode="after")
    def _trace_has_a_file(self) -> Self:
        if self.trace and (self.dataset.path is None or self.dataset.holds_prompts):
            raise ValueError(
                "a trace has its arrivals in a file; give load.dataset.path=FILE, CSV or JSON lines"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_absent_trace(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the record; it has a `trace` only where there is one, as in records of earlier versions."""
        record: dict[str, Any] = handler(self)
        if self.trace is None:
            record.pop("trace", None)
        return record

    @field_validator("rate_range_qps")
    @classmethod
    def _ordered(cls, rate_range_qps: tuple[float, float] | None) -> tuple[float, float] | None:
        if rate_range_qps and rate_range_qps[0] > rate_range_qps[1]:
            raise ValueError("its first rate is the lowest; expected [lowest, highest]")
        return rate_range_qps

    def within(self, qps: float) -> float:
        """Return the rate nearest to `qps` within `rate_range_qps`."""
        low, high = self.rate_range_qps or (0.0, math.inf)
        return min(max(qps, low), high)

    def at(self, target_qps: float) -> Load:
        """Return this load as one run at `target_qps`."""
        return self.model_copy(update={"mode": "fixed", "target_qps": target_qps})

    def sample(self, queries: int) -> Load:
        """Return a short run: the first `queries` arrivals of this load, a fair sample of its lengths."""
        cut = {"min_queries": queries, "min_duration_s": SAMPLE_S, "concatenate_permutation": False}
        return self.model_copy(update=cut)

    @property
    def is_closed_loop(self) -> bool:
        """Return whether users send their next query when their last answer has ended."""
        return self.mode == "concurrency"

    @property
    def offered_qps(self) -> float:
        """Return the mean rate of the arrivals, queries/s; of a closed loop, which has none, ValueError."""
        return require_rate(self.target_qps)

    @property
    def text(self) -> str:
        """Return the load in words: its rate, or its users."""
        return load_text(self.target_qps, self.concurrency)

    @property
    def sending_s(self) -> float:
        """Return the seconds in which the queries are sent; 0 in a closed loop, which nobody knows before."""
        return self.expected_queries / self.target_qps if self.target_qps else 0.0

    @property
    def is_short_run(self) -> bool:
        """Return whether `sample` made this load: its number of requests alone ends it, not its duration."""
        return not self.concatenate_permutation and self.min_duration_s <= SAMPLE_S

    @property
    def schedule_seed(self) -> int:
        """Return the seed of LoadGen's schedule as a number."""
        return MLPERF_SCHEDULE_SEED if self.seed == "mlperf" else self.seed

    @property
    def min_duration_ms(self) -> int:
        """Return the minimum duration in LoadGen's whole milliseconds; a part of one is rounded up."""
        return math.ceil(self.min_duration_s * 1e3)

    @property
    def expected_queries(self) -> int:
        """Return the queries of the run.

        LoadGen issues another pass where arrivals lag at the end of one; these are not counted. A closed loop
        has as many as a verdict on a p99 needs, at least.
        """
        if self.concurrency is not None:
            return max(self.min_queries, QUERIES_PER_USER * self.concurrency, min_queries(0.99))
        queries = max(self.min_queries, math.ceil(self.offered_qps * self.min_duration_s))
        if not self.concatenate_permutation:
            return queries
        return math.ceil(queries / self.dataset.samples) * self.dataset.samples


class LoadGenSlo(SparseModel):
    """Hold the limits of the SLO in seconds; None lifts one.

    LoadGen judges `ttft_p99_s` and `tpot_p99_s`, which are always present. Source: MLPerf Inference rules,
    mlperf.conf. Every other limit of tune.spec.metrics.LIMITS is judged by tune.
    """

    ttft_p99_s: PositiveFloat | None
    tpot_p99_s: PositiveFloat | None

    @property
    def limits(self) -> tuple[tuple[LatencyLimit, float], ...]:
        """Return every limit that is not lifted, with its value in seconds, in the order of LIMITS."""
        values = ((limit, getattr(self, limit.key, None)) for limit in LIMITS)
        return tuple((limit, limit_s) for limit, limit_s in values if limit_s is not None)

    @property
    def further(self) -> tuple[LatencyLimit, ...]:
        """Return the limits that are set and that LoadGen does not know."""
        return tuple(limit for limit, _ in self.limits if limit in FURTHER_LIMITS)

    @property
    def shown(self) -> tuple[LatencyLimit, ...]:
        """Return the limits whose figures are recorded and shown: SHOWN_LIMITS and every further one."""
        return (*SHOWN_LIMITS, *self.further)

    def as_settings(self) -> dict[str, float | None]:
        """Return every setting of `slo`, None for a lifted limit."""
        return {limit.key: getattr(self, limit.key, None) for limit in LIMITS}


if TYPE_CHECKING:

    class Slo(LoadGenSlo):
        """Hold the limits of the SLO; further limits are fields by their keys in tune.spec.metrics."""

else:
    Slo = with_optional_fields(LoadGenSlo, "Slo", (limit.key for limit in FURTHER_LIMITS), PositiveFloat)
