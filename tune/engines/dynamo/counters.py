"""Name the counters of Dynamo's workers and frontends, and the gauges that it passes on from engines.

Source: Dynamo 1.x, lib/runtime/src/metrics/prometheus_names.rs.
"""

from __future__ import annotations

from tune.engines.base import WorkerGauges
from tune.manifest.engine_signals import WorkerCounter

_ENDPOINT = {"dynamo_endpoint": "generate"}

REQUESTS = WorkerCounter(name="dynamo_component_requests_total", labels=_ENDPOINT)
IN_FLIGHT = WorkerCounter(name="dynamo_component_inflight_requests", labels=_ENDPOINT)
"""What a worker has received, and what it has not yet answered to the end, of the endpoint that serves
requests."""

FRONTEND_IN_FLIGHT = WorkerCounter(name="dynamo_frontend_inflight_requests")
"""What a frontend has not yet answered to the end, including what waits there for a worker."""

VLLM_GAUGES = WorkerGauges(running=("vllm:num_requests_running",), kv_used=("vllm:kv_cache_usage_perc",))
SGLANG_GAUGES = WorkerGauges(running=("sglang:num_running_reqs",), kv_used=("sglang:token_usage",))
"""Gauges of vLLM and, with --enable-metrics, of SGLang, which Dynamo passes on from its workers; both shares
of the KV cache are fractions. Source: Dynamo, docs/observability/metrics-comparison.md (4032c56); vLLM,
docs/design/metrics.md; SGLang, python/sglang/srt/observability/metrics_collector.py."""
