"""Check the rules that hold for every engine: split, Dynamo's generation, load.

All broken rules are reported at once, each with its source. tune/engines/check.py adds those of the engine.
"""

from __future__ import annotations

from collections.abc import Iterator

from tune.core.binomial_test import min_queries
from tune.spec.dataset import MAX_QUERIES
from tune.spec.engine import Engine
from tune.spec.findings import Finding
from tune.spec.metrics import STATISTICS
from tune.spec.split import place_workers
from tune.spec.trial import TrialSpec

LONGEST_RUN_S = 1e6
"""Longest run in seconds. Chosen here: far beyond any benchmark, within 64 bits of nanoseconds."""

_MAX_SHARE = max(statistic.share or 0.0 for statistic in STATISTICS)
"""Highest quantile that a limit may be on."""

_LAUNCH = "NVIDIA's MLPerf Inference v5.1 submission; Dynamo's multi-node launch of TensorRT-LLM workers"


def check_deployment(spec: TrialSpec) -> tuple[Finding, ...]:
    """Return the broken rules of split and stack that hold for every engine, and what GPUs are left idle."""
    return (*_split(spec), *_shared_steps(spec), *_stack(spec))


def _split(spec: TrialSpec) -> Iterator[Finding]:
    hardware = spec.hardware
    whole = True
    for role, engine, workers in spec.pools:
        if workers < 1:
            yield Finding(
                "error",
                f"split.{role}_workers",
                str(workers),
                "at least 1",
                "a request passes through one prefill and one decode worker",
                _LAUNCH,
            )
        if hardware.gpus_per_node % engine.gpus and engine.gpus % hardware.gpus_per_node:
            whole = False
            yield Finding(
                "error",
                f"{role}.{engine.KEYS['tensor_parallel']}",
                f"{engine.gpus} GPUs a worker ({_parallelism(engine)})",
                f"a divisor or a multiple of the {hardware.gpus_per_node} GPUs of a node",
                "every node of a worker runs the same number of ranks, and nodes are shared evenly",
                _LAUNCH,
            )
    if whole:
        yield from _room(spec)


def _shared_steps(spec: TrialSpec) -> Iterator[Finding]:
    """Yield a token budget of aggregated workers that a full batch of answers uses up."""
    for role, engine, _ in spec.pools:
        if role == "aggregated" and engine.token_budget <= engine.max_sequences:
            batch = f"{role}.{engine.KEYS['max_sequences']}"
            yield Finding(
                "warning",
                f"{role}.{engine.KEYS['token_budget']}",
                str(engine.token_budget),
                f"more than {batch}, {engine.max_sequences}",
                "a step has a token of every answer first: a full batch leaves none for prompts, which wait",
                "vLLM, vllm/v1/core/sched/scheduler.py; TensorRT-LLM, micro batch scheduler",
            )


def _parallelism(engine: Engine) -> str:
    context = f" x CP{engine.context_parallel}" if engine.context_parallel > 1 else ""
    return f"TP{engine.tensor_parallel}{context} x PP{engine.pipeline_stages}"


def _room(spec: TrialSpec) -> Iterator[Finding]:
    hardware = spec.hardware
    used = sum(pool.engine.gpus * pool.workers for pool in spec.pools)
    layout = " + ".join(f"{pool.workers} {pool.role} x {pool.engine.gpus}" for pool in spec.pools)
    rack = f"{hardware.nodes} nodes x {hardware.gpus_per_node}"
    if place_workers(hardware, spec.prefill, spec.decode, spec.split) is None:
        kept = ", of which split.head=none keeps node 0 free" if spec.split.head == "none" else ""
        yield Finding(
            "error",
            "split",
            f"{spec.split.label}: {layout} = {used} GPUs",
            f"workers that fit {rack} = {hardware.gpus} GPUs{kept}",
            "a worker smaller than a node stays inside one; a larger one takes whole, adjacent nodes",
            _LAUNCH,
        )
    elif used < hardware.gpus:
        idle = hardware.gpus - used
        yield Finding(
            "warning",
            "split",
            f"{spec.split.label}: {layout} = {used} GPUs, {idle} idle",
            f"all {hardware.gpus} GPUs of {rack} at work",
            f"tokens/s/GPU divides by every allocated GPU, and {idle / hardware.gpus:.1%} of them do nothing",
            "the metric's definition: tokens/s / GPUs allocated",
        )


def _stack(spec: TrialSpec) -> Iterator[Finding]:
    stack = spec.stack
    if stack.generation != "dynamo_v1" and stack.router_mode == "least-loaded":
        yield Finding(
            "error",
            "stack.router_mode",
            f"least-loaded with stack {stack.name}",
            "round-robin, random or kv, or stack=dynamo_v1",
            "a frontend before Dynamo 1.0 does not know how busy a worker is",
            "Dynamo, components/frontend of mid 2025: round-robin, random, kv; least-loaded came in 2026",
        )
    if stack.dynamo == "v0" and stack.request_plane == "tcp":
        yield Finding(
            "error",
            "stack.request_plane",
            f"tcp with stack {stack.name}",
            "nats, or stack=dynamo_v07 or dynamo_v1",
            "requests travel over NATS alone before Dynamo 0.7",
            "Dynamo, docs/design-docs/request-plane.md, first in 0.7",
        )
    if stack.shares_files and stack.generation != "dynamo_v1":
        yield Finding(
            "error",
            "stack.discovery",
            f"file with stack {stack.name}",
            "etcd, or stack=dynamo_v1",
            "workers register in etcd alone before Dynamo 1.0",
            "Dynamo, DYN_DISCOVERY_BACKEND of 1.0",
        )
    if stack.shares_files and spec.hardware.nodes > 1:
        yield Finding(
            "warning",
            "stack.discovery",
            f"file with {spec.hardware.nodes} nodes",
            "etcd, unless all nodes are one machine (cluster=local)",
            "processes watch the folder through the kernel, which does not see what other nodes write there",
            "Dynamo 1.x, lib/runtime/src/storage/kv/file.rs; inotify(7)",
        )


def check_load(spec: TrialSpec) -> tuple[Finding, ...]:
    """Return the broken rules of the load, and whether it has too few queries for a verdict."""
    return tuple(_load(spec))


def _load(spec: TrialSpec) -> Iterator[Finding]:
    load, queries = spec.load, spec.load.expected_queries
    asked = "10 x load.concurrency" if load.is_closed_loop else "load.target_qps x load.min_duration_s"
    if queries > MAX_QUERIES:
        yield Finding(
            "error",
            "load.concurrency" if load.is_closed_loop else "load.target_qps",
            f"{queries} queries ({asked})",
            f"at most {MAX_QUERIES}",
            "a run keeps a record of every query in memory",
            "tune/records/requests.py",
        )
    if load.sending_s > LONGEST_RUN_S:
        yield Finding(
            "error",
            "load.target_qps",
            f"{queries} queries at {load.target_qps:g}/s: {load.sending_s:.3g} s",
            f"at most {LONGEST_RUN_S:.3g} s",
            "nobody waits longer, and times are kept in nanoseconds",
            "tune/records/requests.py",
        )
    needed = min_queries(_MAX_SHARE)
    if queries < needed:
        searched = load.mode == "capacity"
        yield Finding(
            "error" if searched else "warning",
            "load.min_queries",
            f"{queries} queries ({asked}, load.min_queries)",
            f"at least {needed}" + (", or load.mode=fixed" if searched else ""),
            "fewer queries cannot show that the 99th percentile holds: such a run has no verdict",
            "LoadGen, early stopping",
        )
