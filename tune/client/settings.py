"""What one run of the load client needs to know: the JSON that a deployment's plan writes for it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from tune.errors import FixCommand
from tune.spec.load import Dataset
from tune.spec.typed import NonNegativeInt, PositiveFloat, PositiveInt, Typed

LoadGenSeed = Annotated[int, Field(ge=0, lt=2**64)]
"""LoadGen keeps a seed in 64 unsigned bits. Source: MLPerf Inference, loadgen/test_settings.h."""


class ClientSettings(Typed):
    """One LoadGen run against one endpoint.

    `request_timeout_s` bounds the time from sending a request to its first token, `response_timeout_s` the
    time from sending to the last. `dataset_path`, where the lengths lie on this node, goes before
    `dataset.path`. A limit that is None is lifted.
    """

    endpoint_url: Annotated[str, Field(pattern=r"^https?://[^/\s]+(/[^\s]*)?$")]
    served_model_name: Annotated[str, Field(min_length=1)]
    target_qps: PositiveFloat
    min_duration_s: PositiveFloat
    min_queries: PositiveInt
    concatenate_permutation: bool
    schedule_seed: Literal["mlperf"] | LoadGenSeed
    length_seed: NonNegativeInt
    ttft_limit_s: PositiveFloat | None
    tpot_limit_s: PositiveFloat | None
    max_output_tokens: PositiveInt
    samples: PositiveInt
    client_concurrency: PositiveInt
    request_timeout_s: PositiveFloat
    response_timeout_s: PositiveFloat
    dataset_path: str | None
    dataset: Dataset

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.samples != self.dataset.samples:
            raise ValueError(f"samples {self.samples} and dataset.samples {self.dataset.samples} must agree")
        return self

    @property
    def lengths(self) -> Dataset:
        """The dataset whose lengths are drawn, read from `dataset_path` where one is given."""
        if self.dataset_path is None:
            return self.dataset
        return self.dataset.model_copy(update={"path": self.dataset_path})

    @property
    def min_duration_ms(self) -> int:
        """LoadGen counts whole milliseconds; a part of one is rounded up."""
        return math.ceil(self.min_duration_s * 1e3)


def read_settings(path: Path) -> ClientSettings:
    """The validated settings in the JSON file `path`. Raises FixCommand that names every wrong key."""
    try:
        return ClientSettings.model_validate_json(path.read_bytes())
    except OSError as error:
        raise FixCommand(
            f"{path}: cannot be read ({error.strerror}); expected the client settings, a JSON object. "
            "Give the client.json of a rendered plan."
        ) from error
    except ValidationError as error:
        findings = "\n".join(
            f"  {'.'.join(str(part) for part in found['loc']) or 'the whole'}: {found['msg']}"
            for found in error.errors(include_url=False, include_input=False)
        )
        raise FixCommand(
            f"{path}: {error.error_count()} finding(s) in the client settings:\n{findings}\n"
            "Correct the file, or render the plan again."
        ) from error
