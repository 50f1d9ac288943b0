"""The question that LoadGen asks: arrivals, dataset, how long."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from tune.spec.base import (
    FrozenModel,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SparseModel,
    with_optional_fields,
)
from tune.spec.metrics import FURTHER_LIMITS, LIMITS, LatencyLimit

MLPERF_SCHEDULE_SEED = 18209322760996052031
"""Source: `schedule_rng_seed` in mlperf.conf of MLPerf Inference v5.1, printed in every LoadGen log."""

SAMPLE_S = 1e-3
"""Least duration of a sample of a load: one that never decides how many requests there are."""

LoadGenSeed = Annotated[int, Field(ge=0, lt=2**64)]
"""LoadGen keeps a seed in 64 unsigned bits. Source: MLPerf Inference, loadgen/test_settings.h."""


def readable_qps(qps: float) -> float:
    """`qps` down to four digits: what people read is what was asked."""
    if qps <= 0:
        return 0.0
    digits = 3 - math.floor(math.log10(qps))
    return round(math.floor(qps * 10.0**digits) / 10.0**digits, max(digits, 0))


class SyntheticInputs(FrozenModel):
    """Prompt lengths drawn from a beta or a normal distribution, clipped to its range."""

    kind: Literal["beta", "normal", "fixed"]
    mean_tokens: PositiveFloat
    sd_tokens: NonNegativeFloat
    min_tokens: PositiveInt
    max_tokens: PositiveInt


class SyntheticOutputs(FrozenModel):
    """Answer lengths resampled from measured ones, scaled to a mean, a share of them at the cap."""

    mean_tokens: PositiveFloat
    cap_frac: Annotated[float, Field(ge=0, lt=1)]


class Dataset(FrozenModel):
    """`samples` prompts and answers. `path` names a file instead of a draw: a CSV with
    input_tokens,output_tokens, or the benchmark's pickle (*.pkl), which holds the prompts themselves.

    `sha256` is that of the file at `path`: other lengths are another trial. Composing fills it in.
    """

    name: str
    samples: PositiveInt
    longest_prompt_tokens: PositiveInt
    longest_answer_tokens: PositiveInt
    inputs: SyntheticInputs
    outputs: SyntheticOutputs
    path: str | None = None
    sha256: str | None = None

    @property
    def holds_prompts(self) -> bool:
        """Whether `path` names the benchmark's pickle; the engine decides how long its answers are."""
        return self.path is not None and self.path.endswith(".pkl")


class Load(FrozenModel):
    """LoadGen's Server scenario: Poisson arrivals at `target_qps`, never slowed by backlog.

    `seed` is "mlperf" for LoadGen's published schedule seed, or an integer. `shuffle_seed` draws lengths
    and their order. With `concatenate_permutation` (the benchmark's setting) the query count is padded to
    whole passes over the dataset; without it a run may be the beginning of a pass. `request_timeout_s`
    bounds the time from sending a request to its first token, `response_timeout_s` the time from sending it
    to its last. `api`: prompts go to OpenAI's completions as token ids, or to its chat completions as text,
    around which the server puts the model's template. `mode`: one run at `target_qps`, or several on one
    deployment for the highest rate that holds the SLO, found to `resolution` of it, beginning near
    `target_qps`; none outside of `rate_range_qps` (lowest, highest) is asked.
    """

    mode: Literal["fixed", "capacity"] = "fixed"
    resolution: Annotated[float, Field(gt=0, lt=1)] = 0.015
    rate_range_qps: tuple[PositiveFloat, PositiveFloat] | None = None
    target_qps: PositiveFloat
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

    @field_validator("rate_range_qps")
    @classmethod
    def _ordered(cls, rate_range_qps: tuple[float, float] | None) -> tuple[float, float] | None:
        if rate_range_qps and rate_range_qps[0] > rate_range_qps[1]:
            raise ValueError("its first rate is the lowest; expected [lowest, highest]")
        return rate_range_qps

    def within(self, qps: float) -> float:
        """The rate nearest to `qps` that may be asked."""
        low, high = self.rate_range_qps or (0.0, math.inf)
        return min(max(qps, low), high)

    def at(self, target_qps: float) -> Load:
        """One run of this load at `target_qps`."""
        return self.model_copy(update={"mode": "fixed", "target_qps": target_qps})

    def sample(self, queries: int) -> Load:
        """A short run of `queries` requests: this load's first arrivals, a fair sample of its lengths."""
        cut = {"min_queries": queries, "min_duration_s": SAMPLE_S, "concatenate_permutation": False}
        return self.model_copy(update=cut)

    @property
    def is_short_run(self) -> bool:
        """Whether it is one that `sample` made: so many requests, however soon they come."""
        return not self.concatenate_permutation and self.min_duration_s <= SAMPLE_S

    @property
    def schedule_seed(self) -> int:
        return MLPERF_SCHEDULE_SEED if self.seed == "mlperf" else self.seed

    @property
    def min_duration_ms(self) -> int:
        """LoadGen counts whole milliseconds; a part of one is rounded up."""
        return math.ceil(self.min_duration_s * 1e3)

    @property
    def expected_queries(self) -> int:
        """Queries of the whole run; where arrivals lag at the end of a pass, LoadGen issues another pass."""
        wanted = max(self.min_queries, math.ceil(self.target_qps * self.min_duration_s))
        if not self.concatenate_permutation:
            return wanted
        return math.ceil(wanted / self.dataset.samples) * self.dataset.samples


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

    def as_settings(self) -> dict[str, float | None]:
        """Return every setting of `slo`, None for a lifted limit."""
        return {limit.key: getattr(self, limit.key, None) for limit in LIMITS}


if TYPE_CHECKING:

    class Slo(LoadGenSlo):
        """Hold the limits of the SLO; further limits are fields by their keys in tune.spec.metrics."""

else:
    Slo = with_optional_fields(LoadGenSlo, "Slo", (limit.key for limit in FURTHER_LIMITS), PositiveFloat)
