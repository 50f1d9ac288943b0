"""Check what Dynamo's mock engines have no setting for, and the ports that they need.

Three limits always hold and are no finding. A prefill step is timed by its new tokens alone, whatever context
lies behind them (step_time_tables.py). KV transfers have no latency of their own and never wait for each
other. The frontend takes its own time and not the calibration's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tune.engines.system_ports import check_ports
from tune.engines.trtllm.engine_pools import trtllm_pools
from tune.engines.trtllm.trtllm_engine import TrtLlmEngine
from tune.spec.findings import Finding
from tune.spec.split import GENERATES_ANSWERS, READS_PROMPTS, Role
from tune.spec.trial import TrialSpec

_ARGS = "Dynamo 1.6.1, components/src/dynamo/mocker/args.py"
_error, _warning = partial(Finding, "error"), partial(Finding, "warning")


def check_mocked(spec: TrialSpec) -> Iterator[Finding]:
    """Yield every rule that `spec` breaks with mock engines."""
    stack = spec.stack
    yield from check_ports(spec, (stack.etcd_client_port, stack.etcd_peer_port, stack.nats_port))
    for role, engine in trtllm_pools(spec):
        yield from _engine(engine, role)
    reading = spec.pools[0]
    stages = reading.engine.pipeline_stages
    if stages > 1:
        yield _warning(
            f"{reading.role}.pipeline_parallel_size",
            str(stages),
            "1 with stack dynamo_v1_mocker",
            f"mock engines have no pipeline: prompts pass at the right rate, {stages - 1} steps too early",
            _ARGS,
        )


def _engine(engine: TrtLlmEngine, role: Role) -> Iterator[Finding]:
    if engine.capacity_policy == "STATIC_BATCH":
        yield _error(
            f"{role}.scheduler_config.capacity_scheduler_policy",
            "STATIC_BATCH with stack dynamo_v1_mocker",
            "GUARANTEED_NO_EVICT or MAX_UTILIZATION",
            "mock engines admit a sequence whenever it fits, never a batch at a time",
            _ARGS,
        )
    if role in READS_PROMPTS and engine.chunking_policy == "EQUAL_PROGRESS":
        yield _warning(
            f"{role}.scheduler_config.context_chunking_policy",
            "EQUAL_PROGRESS with stack dynamo_v1_mocker",
            "FIRST_COME_FIRST_SERVED",
            "mock engines give chunks to the prompt that came first",
            _ARGS,
        )
    if role in GENERATES_ANSWERS and (engine.stream_interval or 1) > 1:
        yield _warning(
            f"{role}.stream_interval",
            str(engine.stream_interval),
            "1 with stack dynamo_v1_mocker",
            "mock engines stream every token by itself",
            _ARGS,
        )
    if engine.passed_through:
        yield _warning(
            role,
            ", ".join(engine.passed_through),
            "nothing with stack dynamo_v1_mocker",
            "mock engines read no engine YAML: here they change nothing, and a misspelt one is not noticed",
            _ARGS,
        )
