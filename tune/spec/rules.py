"""The rules between the words of a trial. All that are broken are told at once, each with its source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from tune.core.binomial_test import min_queries
from tune.spec.cluster import ClusterFacts
from tune.spec.engine import Engine
from tune.spec.engine_rules import check_engine
from tune.spec.findings import Finding
from tune.spec.metrics import STATISTICS
from tune.spec.mock_rules import check_mocked
from tune.spec.slurm_time import duration_s
from tune.spec.split import Role, place_workers
from tune.spec.trial import TrialSpec

MAX_QUERIES = 20_000_000
LONGEST_RUN_S = 1e6
"""Bounds on one run, ours: far beyond any benchmark, within memory and 64 bits of nanoseconds."""

_MAX_SHARE = max(statistic.share or 0.0 for statistic in STATISTICS)
"""Highest quantile that a limit may be on."""

_LAUNCH = "NVIDIA's MLPerf Inference v5.1 submission; Dynamo's multi-node launch of TensorRT-LLM workers"
_ARGS = "TensorRT-LLM, llm_args.py"


def check(spec: TrialSpec) -> tuple[Finding, ...]:
    """Every broken rule of `spec` (errors) and every choice that costs something (warnings)."""
    return (
        *_split(spec),
        *_stack(spec),
        *_pools_agree(spec),
        *check_engine(spec, "prefill"),
        *check_engine(spec, "decode"),
        *_load(spec),
        *check_mocked(spec),
    )


def _pools(spec: TrialSpec) -> tuple[tuple[Role, Engine, int], ...]:
    return (
        ("prefill", spec.prefill, spec.split.prefill_workers),
        ("decode", spec.decode, spec.split.decode_workers),
    )


def _split(spec: TrialSpec) -> Iterator[Finding]:
    hardware = spec.hardware
    whole = True
    for role, engine, workers in _pools(spec):
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
                f"{role}.tensor_parallel_size",
                f"{engine.gpus} GPUs a worker (TP{engine.tensor_parallel_size} x "
                f"PP{engine.pipeline_parallel_size})",
                f"a divisor or a multiple of the {hardware.gpus_per_node} GPUs of a node",
                "every node of a worker runs the same number of ranks, and nodes are shared evenly",
                _LAUNCH,
            )
    if whole:
        yield from _room(spec)


def _room(spec: TrialSpec) -> Iterator[Finding]:
    hardware = spec.hardware
    used = sum(engine.gpus * workers for _, engine, workers in _pools(spec))
    layout = " + ".join(f"{workers} {role} x {engine.gpus}" for role, engine, workers in _pools(spec))
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
    if stack.name == "dynamo_v0" and not spec.prefill.disable_overlap_scheduler:
        yield Finding(
            "error",
            "prefill.disable_overlap_scheduler",
            "false with stack dynamo_v0",
            "true, or stack=dynamo_v1",
            "a context-only engine of mid 2025 refuses every request while the overlap scheduler is on",
            "TensorRT-LLM, tensorrt_llm/executor of mid 2025; lifted in 2026 (pull request 10755)",
        )
    if stack.name == "dynamo_v0" and stack.router_mode == "least-loaded":
        yield Finding(
            "error",
            "stack.router_mode",
            "least-loaded with stack dynamo_v0",
            "round-robin or random, or stack=dynamo_v1",
            "the frontend of mid 2025 does not know how busy a worker is",
            "Dynamo, components/frontend of mid 2025: round-robin, random, kv; least-loaded came in 2026",
        )
    if stack.name != "dynamo_v0" and spec.split.disaggregation_strategy != "prefill_first":
        yield Finding(
            "error",
            "split.disaggregation_strategy",
            f"{spec.split.disaggregation_strategy} with stack {stack.name}",
            "prefill_first, or stack=dynamo_v0",
            "today's frontend routes by itself and has no word for who answers first",
            "Dynamo: the strategy flag of dynamo.trtllm was removed on 2025-11-04",
        )
    if stack.name == "dynamo_v1" and stack.engine_yaml == "flat":
        yield Finding(
            "error",
            "stack.engine_yaml",
            "flat with stack dynamo_v1",
            "nested",
            "Dynamo 1.x runs a TensorRT-LLM that rejects the flat keys as unknown",
            _ARGS,
        )
    for role, engine, _ in _pools(spec):
        backend = engine.cache_transceiver_config.backend
        if stack.engine_yaml == "flat" and backend != "DEFAULT":
            yield Finding(
                "error",
                f"{role}.cache_transceiver_config.backend",
                backend,
                "DEFAULT, or a stack with nested engine YAML",
                "the flat generation has no key for the backend and would silently ignore one",
                "TensorRT-LLM 1.0.0rc3, llm_args.py",
            )


def _pools_agree(spec: TrialSpec) -> Iterator[Finding]:
    prefill, decode = (engine.kv_cache_config.dtype for _, engine, _ in _pools(spec))
    if prefill != decode:
        yield Finding(
            "error",
            "decode.kv_cache_config.dtype",
            f"{decode}, with {prefill} in prefill.kv_cache_config.dtype",
            "the same in both pools",
            "decode reads the KV blocks that prefill wrote, byte for byte",
            "TensorRT-LLM, disaggregated serving: the cache transceiver copies blocks unconverted",
        )
    backends = [engine.cache_transceiver_config.backend for _, engine, _ in _pools(spec)]
    if backends[0] != backends[1]:
        yield Finding(
            "error",
            "decode.cache_transceiver_config.backend",
            f"{backends[1]}, with {backends[0]} in prefill.cache_transceiver_config.backend",
            "the same in both pools",
            "both ends of a KV transfer speak one protocol",
            "TensorRT-LLM, disaggregated serving",
        )


def check_cluster(facts: ClusterFacts) -> tuple[Finding, ...]:
    """What `facts` say of the cluster and would not work."""
    return (*_placeholder(facts), *_unmounted(facts), *_warned_too_early(facts))


def _placeholder(facts: ClusterFacts) -> tuple[Finding, ...]:
    if not facts.model_path.startswith("/your/"):
        return ()
    return (
        Finding(
            "warning",
            "cluster.model_path",
            facts.model_path,
            "the folder of the checkpoint on your cluster",
            "the reference facts name no real path: copy them and make path, partition and account yours",
            "conf/cluster/facts/gb200_rack.yaml",
        ),
    )


def _warned_too_early(facts: ClusterFacts) -> tuple[Finding, ...]:
    limit_s = duration_s(facts.time_limit)
    if limit_s is None or facts.signal_s < limit_s:
        return ()
    return (
        Finding(
            "error",
            "cluster.signal_s",
            f"{facts.signal_s} with a time limit of {facts.time_limit}",
            f"less than the {limit_s:.0f} s that the job has",
            "a job stops by itself so long before its time limit: this one as soon as it begins, if at all",
            "Slurm, sbatch(1), --signal",
        ),
    )


def _unmounted(facts: ClusterFacts) -> tuple[Finding, ...]:
    if facts.container_image is None or facts.container_mount_home or not facts.model_path.startswith("/"):
        return ()
    inside = [mount.split(":")[1] if ":" in mount else mount for mount in facts.container_mounts]
    if any(PurePosixPath(facts.model_path).is_relative_to(folder) for folder in inside):
        return ()
    return (
        Finding(
            "warning",
            "cluster.model_path",
            facts.model_path,
            f"a path below a folder of cluster.container_mounts: {', '.join(inside) or 'none'}",
            "workers run in the image and see only its own files and what is mounted",
            "pyxis, --container-mounts",
        ),
    )


def check_simulated(spec: TrialSpec) -> tuple[Finding, ...]:
    """Settings of `spec` that a real rack follows and the simulated one passes over."""
    return tuple(
        Finding(
            "warning",
            f"{role}.extra",
            ", ".join(engine.extra),
            "keys that the simulated rack knows",
            "the plan passes them to the engine; here they change nothing, and a misspelt one is not noticed",
            "tune/sim",
        )
        for role, engine in (("prefill", spec.prefill), ("decode", spec.decode))
        if engine.extra
    )


def _load(spec: TrialSpec) -> Iterator[Finding]:
    queries, dataset = spec.load.expected_queries, spec.load.dataset
    if queries > MAX_QUERIES:
        yield Finding(
            "error",
            "load.target_qps",
            f"{queries} queries (load.target_qps x load.min_duration_s)",
            f"at most {MAX_QUERIES}",
            "a run keeps a record of every query in memory",
            "tune/records/requests.py",
        )
    if queries / spec.load.target_qps > LONGEST_RUN_S:
        yield Finding(
            "error",
            "load.target_qps",
            f"{queries} queries at {spec.load.target_qps:g}/s: {queries / spec.load.target_qps:.3g} s",
            f"at most {LONGEST_RUN_S:.3g} s",
            "nobody waits longer, and times are kept in nanoseconds",
            "tune/records/requests.py",
        )
    if dataset.path is None and dataset.inputs.max_tokens > dataset.longest_prompt_tokens:
        yield Finding(
            "error",
            "load.dataset.inputs.max_tokens",
            str(dataset.inputs.max_tokens),
            f"at most load.dataset.longest_prompt_tokens, {dataset.longest_prompt_tokens}",
            "the rules hold buffers and sequence lengths against the longest prompt",
            "tune/spec/load.py",
        )
    needed = min_queries(_MAX_SHARE)
    if queries < needed:
        searched = spec.load.mode == "capacity"
        yield Finding(
            "error" if searched else "warning",
            "load.min_queries",
            f"{queries} queries (load.target_qps x load.min_duration_s, load.min_queries)",
            f"at least {needed}" + (", or load.mode=fixed" if searched else ""),
            "fewer queries cannot show that the 99th percentile holds: such a run has no verdict",
            "LoadGen, early stopping",
        )
