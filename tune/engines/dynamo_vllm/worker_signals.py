"""Describe the logs of vLLM workers that the configuration is to blame for, and their counters."""

from __future__ import annotations

from tune.engines.dynamo.counters import FRONTEND_IN_FLIGHT, IN_FLIGHT, REQUESTS
from tune.engines.shared_failures import GPU_MEMORY
from tune.manifest.engine_signals import EngineSignals
from tune.spec.failure import FailureRule

_SEEN = "vLLM 0.23.0 under Dynamo 1.3.1 on an H200 (2026-11-30), shortened in tests/data/vllm"

FAILURE_RULES = (
    GPU_MEMORY,
    FailureRule(
        name="refused_argument",
        pattern=r"__main__\.py: error: ",
        cause="configuration",
        meaning="vLLM refuses an argument",
        next_step="Correct the setting that the line names.",
        source=_SEEN,
    ),
    FailureRule(
        name="rejected_settings",
        pattern=r"validation errors? for \w+Config\b",
        cause="configuration",
        meaning="vLLM rejects its settings",
        next_step="Correct the setting that the lines after it name.",
        source=_SEEN,
    ),
    FailureRule(
        name="kv_cache_too_small",
        pattern=r"ValueError: (?:To serve at least one request with the model's max seq len"
        r"|No available memory for the cache blocks)",
        cause="configuration",
        meaning="the KV cache is too small for one sequence",
        next_step="Lower max_model_len of the pool, or give its workers more GPUs.",
        source="vLLM, vllm/v1/core/kv_cache_utils.py",
    ),
)
"""What only a configuration brings a worker to write. GPU memory that another process holds ("Free memory on
device ... is less than desired") is none of them."""

SIGNALS = EngineSignals(
    failure_rules=FAILURE_RULES,
    requests=REQUESTS,
    in_flight=IN_FLIGHT,
    frontend_in_flight=FRONTEND_IN_FLIGHT,
)
