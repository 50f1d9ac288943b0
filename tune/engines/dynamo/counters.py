"""Name the counters of Dynamo's workers and frontends.

Source: Dynamo 1.x, lib/runtime/src/metrics/prometheus_names.rs.
"""

from __future__ import annotations

from tune.manifest.engine_signals import WorkerCounter

_ENDPOINT = {"dynamo_endpoint": "generate"}

REQUESTS = WorkerCounter(name="dynamo_component_requests_total", labels=_ENDPOINT)
IN_FLIGHT = WorkerCounter(name="dynamo_component_inflight_requests", labels=_ENDPOINT)
"""What a worker has received, and what it has not yet answered to the end, of the endpoint that serves
requests."""

FRONTEND_IN_FLIGHT = WorkerCounter(name="dynamo_frontend_inflight_requests")
"""What a frontend has not yet answered to the end, including what waits there for a worker."""
