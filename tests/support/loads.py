"""Build loads for tests."""

from __future__ import annotations

from typing import Any

from tune.spec.dataset import Dataset, SyntheticInputs, SyntheticOutputs
from tune.spec.load import Load


def make_load(samples: int = 40, **changes: Any) -> Load:
    fixed = SyntheticInputs(kind="fixed", mean_tokens=9.0, sd_tokens=0.0, min_tokens=1, max_tokens=9)
    dataset = Dataset(
        name="small",
        samples=samples,
        longest_prompt_tokens=9,
        longest_answer_tokens=9,
        inputs=fixed,
        outputs=SyntheticOutputs(mean_tokens=5.0, cap_frac=0.0),
    )
    load = {"target_qps": 15.75, "min_duration_s": 600.0, "min_queries": 100, "concatenate_permutation": True}
    seeds = {"seed": "mlperf", "shuffle_seed": 0}
    client = {"client_concurrency": 1, "request_timeout_s": 1.0, "response_timeout_s": 1.0}
    return Load(dataset=dataset, **load | seeds | client | changes)
