"""Describe the logs of vLLM workers that the configuration is to blame for, and their counters."""

from __future__ import annotations

from tune.engines.dynamo.counters import FRONTEND_IN_FLIGHT, IN_FLIGHT, REQUESTS
from tune.manifest.engine_signals import EngineSignals

FAILURE_PATTERNS = (
    r"CUDA out of memory|torch\.(?:cuda\.)?OutOfMemoryError",
    r"CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation",
    r"__main__\.py: error: ",
    r"validation errors? for \w+Config\b",
    r"ValueError: To serve at least one request with the model's max seq len",
    r"ValueError: No available memory for the cache blocks",
)
"""What only a configuration brings a worker to write: GPU memory that does not suffice, an argument that the
parser refuses, settings that contradict each other, a KV cache too small for one sequence. GPU memory that
another process holds ("Free memory on device ... is less than desired") is none of them.
Source: logs of vLLM 0.23.0 under Dynamo 1.3.1 on an H200 (2026-11-30), shortened in tests/data/vllm; vLLM,
vllm/v1/core/kv_cache_utils.py."""

SIGNALS = EngineSignals(
    failure_patterns=FAILURE_PATTERNS,
    requests=REQUESTS,
    in_flight=IN_FLIGHT,
    frontend_in_flight=FRONTEND_IN_FLIGHT,
)
