"""Name the counters of Dynamo's workers and frontends, and the metrics that it passes on from engines.

Source: Dynamo 1.x, lib/runtime/src/metrics/prometheus_names.rs. Earlier names: texts in the libraries of the
runtimes 0.3.2, 0.4.0, 0.4.1 and 0.5.1 (ai-dynamo-runtime), and Dynamo's pull requests 2176 (frontends), 2180
(prefix and labels of workers), 2515 (requests in flight at workers) and 3035 (_total). Workers of 0.3.2 have
no counters.
"""

from __future__ import annotations

from tune.engines.base import Histogram, WorkerMetrics
from tune.manifest.engine_signals import WorkerCounter

_ENDPOINT = {"dynamo_endpoint": "generate"}
_ENDPOINT_OF_0_4_0 = {"endpoint": "generate"}

REQUESTS = WorkerCounter(
    name="dynamo_component_requests_total",
    labels=_ENDPOINT,
    earlier=(WorkerCounter(name="requests_total", labels=_ENDPOINT_OF_0_4_0),),
)
IN_FLIGHT = WorkerCounter(
    name="dynamo_component_inflight_requests",
    labels=_ENDPOINT,
    earlier=(
        WorkerCounter(name="dynamo_component_inflight_requests_total", labels=_ENDPOINT),
        WorkerCounter(name="dynamo_component_concurrent_requests", labels=_ENDPOINT),
        WorkerCounter(name="concurrent_requests", labels=_ENDPOINT_OF_0_4_0),
    ),
)
"""What a worker has received, and what it has not yet answered to the end, of the endpoint that serves
requests."""

REQUEST_S = Histogram("dynamo_component_request_duration_seconds", labels=_ENDPOINT)
"""How long a worker held each request."""

FRONTEND_IN_FLIGHT = WorkerCounter(
    name="dynamo_frontend_inflight_requests",
    earlier=(
        WorkerCounter(name="dynamo_frontend_inflight_requests_total"),
        WorkerCounter(name="nv_llm_http_service_inflight_requests"),
    ),
)
"""What a frontend has not yet answered to the end, including what waits there for a worker."""

VLLM_METRICS = WorkerMetrics(
    running=("vllm:num_requests_running",),
    waiting=("vllm:num_requests_waiting",),
    kv_used=("vllm:kv_cache_usage_perc",),
    failed_transfers=("vllm:nixl_num_failed_transfers_total",),
    transfer_s=(Histogram("vllm:nixl_xfer_time_seconds"),),
    transfer_bytes=(Histogram("vllm:nixl_bytes_transferred"),),
    token_s=(Histogram("vllm:inter_token_latency_seconds"),),
    request_s=(REQUEST_S,),
)
SGLANG_METRICS = WorkerMetrics(
    running=("sglang:num_running_reqs",),
    waiting=("sglang:num_queue_reqs",),
    kv_used=("sglang:token_usage",),
    failed_transfers=("sglang:num_transfer_failed_reqs_total",),
    transfer_s=(Histogram("sglang:kv_transfer_latency_ms", 1e-3),),
    transfer_bytes=(Histogram("sglang:kv_transfer_total_mb", 2.0**20),),
    token_s=(Histogram("sglang:inter_token_latency_seconds"),),
)
"""Metrics of vLLM and, with --enable-metrics, of SGLang, which Dynamo passes on from its workers; both shares
of the KV cache are fractions. Source: Dynamo, docs/observability/metrics-comparison.md (4032c56); vLLM,
docs/design/metrics.md and vllm/distributed/kv_transfer/kv_connector/v1/nixl; SGLang,
python/sglang/srt/observability/metrics_collector.py and req_time_stats.py."""
