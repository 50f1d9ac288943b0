"""Hold the prompts and answers of a load by their lengths: distributions, or a file."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, GetPydanticSchema, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError, core_schema

from tune.spec.base import FrozenModel, NonNegativeFloat, PositiveFloat, PositiveInt, SparseModel

MAX_QUERIES = 20_000_000
"""Most requests of a run, and most lengths of a dataset: a run keeps a record of each in memory."""


class SyntheticInputs(FrozenModel):
    """Describe prompt lengths that are drawn from a beta or a normal distribution, clipped to its range."""

    kind: Literal["beta", "normal", "fixed"]
    mean_tokens: PositiveFloat
    sd_tokens: NonNegativeFloat
    min_tokens: PositiveInt
    max_tokens: PositiveInt

    @property
    def longest_tokens(self) -> int:
        """Return the longest length that can be drawn."""
        return self.max_tokens


class MeasuredInputs(FrozenModel):
    """Describe the prompts of MLPerf's Llama-3.1-405B dataset, each paired with an answer by its reference.

    Source of the lengths: tune/workload/data/README.md.
    """

    kind: Literal["measured"]

    @property
    def longest_tokens(self) -> int:
        """Return the longest length of that dataset."""
        return 19_988


class SyntheticOutputs(FrozenModel):
    """Describe answer lengths: measured ones, resampled and scaled to a mean, a share of them at the cap."""

    mean_tokens: PositiveFloat
    cap_frac: Annotated[float, Field(ge=0, lt=1)]


class RangeLengths(FrozenModel):
    """Describe lengths that are equally probable in a range around or below `tokens`.

    With `range_rule: vllm` they lie between tokens x (1 - range_ratio) and tokens x (1 + range_ratio), so 0
    gives one length. With `range_rule: inferencex` they lie between tokens x range_ratio and tokens, so 1
    gives one length.

    Sources: vLLM, `vllm bench serve --random-range-ratio`; SemiAnalysisAI/InferenceX,
    utils/bench_serving/benchmark_serving.py, sample_random_requests.
    """

    kind: Literal["range"]
    tokens: PositiveInt
    range_ratio: Annotated[float, Field(ge=0, le=1)]
    range_rule: Literal["vllm", "inferencex"]

    @model_validator(mode="after")
    def _ratio_of_vllm_is_below_1(self) -> Self:
        if self.range_rule == "vllm" and self.range_ratio == 1:
            raise ValueError(
                "range_ratio is 1; with range_rule=vllm it is below 1, and 0 gives one length. "
                "With InferenceX's rule, where 1 gives one length, set range_rule=inferencex"
            )
        return self

    @property
    def shortest_tokens(self) -> int:
        """Return the lower end of the range."""
        share = 1 - self.range_ratio if self.range_rule == "vllm" else self.range_ratio
        return max(math.floor(self.tokens * share), 1)

    @property
    def longest_tokens(self) -> int:
        """Return the upper end of the range."""
        share = 1 + self.range_ratio if self.range_rule == "vllm" else 1.0
        return math.ceil(self.tokens * share)


class LognormalLengths(SparseModel):
    """Describe lengths whose logarithm is normal, clipped to a range.

    The centre is `mean_tokens` or `median_tokens`, the spread `sd_tokens` or `p95_tokens`, all of them before
    the clip. The other of each pair is None.
    """

    kind: Literal["lognormal"]
    mean_tokens: PositiveFloat | None = None
    median_tokens: PositiveFloat | None = None
    sd_tokens: PositiveFloat | None = None
    p95_tokens: PositiveFloat | None = None
    min_tokens: PositiveInt
    max_tokens: PositiveInt

    @model_validator(mode="after")
    def _one_centre_and_one_spread(self) -> Self:
        for first, second in (("mean_tokens", "median_tokens"), ("sd_tokens", "p95_tokens")):
            given = [name for name in (first, second) if getattr(self, name) is not None]
            if len(given) != 1:
                found = " and ".join(given) or f"neither {first} nor {second}"
                raise ValueError(f"found {found}; expected one of {first} and {second}, the other null")
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens {self.min_tokens} lies above max_tokens {self.max_tokens}")
        return self

    @property
    def longest_tokens(self) -> int:
        """Return the longest length that can be drawn."""
        return self.max_tokens


_KINDS: dict[str, type[FrozenModel]] = {
    **dict.fromkeys(("beta", "normal", "fixed"), SyntheticInputs),
    "range": RangeLengths,
    "lognormal": LognormalLengths,
    "measured": MeasuredInputs,
}
"""Class of each kind of prompt lengths; answers without a kind are SyntheticOutputs."""


def _validate_inputs(value: Any, info: ValidationInfo) -> FrozenModel | None:
    """Return `value` as the class that its kind names; errors then name the setting, not the class."""
    if value is None or isinstance(value, SyntheticInputs | MeasuredInputs | RangeLengths | LognormalLengths):
        return value
    kind = value.get("kind", "beta") if isinstance(value, dict) else "beta"
    if kind not in _KINDS:
        raise PydanticCustomError("kind", f"expected a kind of {', '.join(_KINDS)}")
    return _parsed(_KINDS[kind], value, info)


def _validate_outputs(value: Any, info: ValidationInfo) -> FrozenModel | None:
    """Return `value` as the class that its kind names, as SyntheticOutputs without a kind."""
    if isinstance(value, SyntheticOutputs):
        return value
    if isinstance(value, dict) and value.get("kind") not in ("range", "lognormal"):
        return _parsed(SyntheticOutputs, value, info)
    return _validate_inputs(value, info)


def _parsed(settings: type[FrozenModel], value: Any, info: ValidationInfo) -> FrozenModel:
    if info.mode == "json":
        return settings.model_validate_json(json.dumps(value))
    return settings.model_validate(value)


def _validated_by(validate: Any) -> GetPydanticSchema:
    return GetPydanticSchema(lambda source, handler: core_schema.with_info_plain_validator_function(validate))


Inputs = Annotated[
    SyntheticInputs | MeasuredInputs | RangeLengths | LognormalLengths | None, _validated_by(_validate_inputs)
]
Outputs = Annotated[
    SyntheticOutputs | RangeLengths | LognormalLengths | None, _validated_by(_validate_outputs)
]


class Dataset(FrozenModel):
    """Describe `samples` prompts and answers, drawn or read from the file at `path`.

    `path` names a file of lengths (CSV or JSON lines), or the benchmark's pickle (*.pkl), which holds the
    prompts themselves. `sha256` is the hash of that file, since other lengths are another trial; composing
    the configuration fills it in. `inputs` and `outputs` may be None where a file has the lengths.
    """

    name: str
    samples: Annotated[int, Field(gt=0, le=MAX_QUERIES)]
    longest_prompt_tokens: PositiveInt
    longest_answer_tokens: PositiveInt
    inputs: Inputs
    outputs: Outputs
    path: str | None = None
    sha256: str | None = None

    @model_validator(mode="after")
    def _has_lengths(self) -> Self:
        if self.path is None and (self.inputs is None or self.outputs is None):
            raise ValueError("found neither a path nor inputs and outputs; give load.dataset.path=FILE")
        if self.holds_prompts and self.outputs is None:
            raise ValueError("a pickle may lack answers; expected outputs, as in load=mlperf_interactive")
        return self

    @property
    def pairs_lengths(self) -> bool:
        """Return whether it is known which of the drawn answers belongs to which prompt."""
        return isinstance(self.inputs, MeasuredInputs)

    @property
    def holds_prompts(self) -> bool:
        """Return whether `path` names the benchmark's pickle; the engine decides how long its answers are."""
        return self.path is not None and self.path.endswith(".pkl")
