"""Adapt TensorRT-LLM to the protocol of engines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

import yaml

from tune.engines.base import (
    EngineAdapter,
    Histogram,
    LoggedStep,
    Remedy,
    WorkerMetrics,
)
from tune.engines.dynamo.counters import FRONTEND_IN_FLIGHT, IN_FLIGHT, REQUEST_S, REQUESTS
from tune.engines.dynamo.dynamo_environment import OVERRIDABLE
from tune.engines.dynamo.dynamo_frontends import dynamo_frontends
from tune.engines.dynamo.dynamo_services import dynamo_services
from tune.engines.key_shapes import KeyPlace, Shape, misshapen_key
from tune.engines.shared_failures import GPU_MEMORY
from tune.engines.trtllm.argument_classes import ENGINE_PACKAGE, trtllm_validators
from tune.engines.trtllm.engine_pools import trtllm_pools, trtllm_settings, yaml_generation
from tune.engines.trtllm.engine_rules import check_worker
from tune.engines.trtllm.generation_rules import (
    check_dropped_keys,
    check_generation,
    check_strategy,
    check_transceivers,
)
from tune.engines.trtllm.gpu_memory import trtllm_kv_capacity_tokens
from tune.engines.trtllm.key_rules import check_conflicts, check_spelling
from tune.engines.trtllm.print_iter_log import read_trtllm_steps
from tune.engines.trtllm.trtllm_remedies import trtllm_recommendations
from tune.engines.trtllm.weight_rules import check_weights
from tune.engines.trtllm.worker_process import (
    PORT_CHOICE_S,
    RANK_LAUNCHER,
    trtllm_environment,
    trtllm_worker,
)
from tune.engines.trtllm.yaml_reading import (
    READ_SHAPES,
    comparable_keys,
    generation_of_keys,
    gpus_of_keys,
    keys_of_words,
    longest_prompt_of_keys,
    settings_of_keys,
)
from tune.engines.trtllm.yaml_text import engine_yaml
from tune.manifest.argument_check import Validators
from tune.manifest.engine_signals import EngineSignals
from tune.manifest.process import Process
from tune.records.outcome import Recommendation
from tune.spec.cluster import ClusterFacts
from tune.spec.engine import Engine
from tune.spec.failure import FailureRule
from tune.spec.findings import Finding
from tune.spec.hardware import Hardware
from tune.spec.model import Model
from tune.spec.split import GENERATES_ANSWERS, ROLES, Role, WorkerPlacement
from tune.spec.trial import TrialSpec

FAILURE_RULES = (
    GPU_MEMORY,
    FailureRule(
        name="executor_memory",
        pattern=r"Executor creation failed due to insufficient GPU memory",
        cause="configuration",
        meaning="a part of the executor does not fit in GPU memory",
        next_step="The lines after it say which: lower kv_cache_config.free_gpu_memory_fraction, "
        "max_batch_size or max_num_tokens of the pool.",
        source="NVIDIA/TensorRT-LLM#5872",
    ),
    FailureRule(
        name="rejected_settings",
        pattern=r"validation errors? for (?:TorchLlmArgs|TrtLlmArgs|BaseLlmArgs)",
        cause="configuration",
        meaning="TensorRT-LLM rejects its settings",
        next_step="The lines after it name the keys; stack.engine_yaml has to be that of the image.",
        source="pydantic, title of a ValidationError; TensorRT-LLM, tensorrt_llm/llmapi/llm_args.py",
    ),
)
"""What only a configuration brings a worker to write."""

METRICS = WorkerMetrics(
    running=("trtllm_num_requests_running", "trtllm:num_requests_running"),
    waiting=("trtllm_num_requests_waiting", "trtllm:num_requests_waiting"),
    kv_used=("trtllm_kv_cache_utilization", "trtllm:kv_cache_usage_perc"),
    transfer_s=(Histogram("trtllm_kv_transfer_latency_seconds"),),
    transfer_bytes=(Histogram("trtllm_kv_transfer_bytes"),),
    token_s=(
        Histogram("trtllm_time_per_output_token_seconds"),
        Histogram("trtllm:inter_token_latency_seconds"),
    ),
    request_s=(REQUEST_S,),
)
"""Metrics of TensorRT-LLM workers, which show them with --publish-metrics, those of KV transfers where the
engine also returns the times of each request, and then those of the mock engines that stand for such workers,
of which `kv_cache_usage_perc` is a fraction despite its name.
Source: TensorRT-LLM, tensorrt_llm/metrics/collector.py (050f80d); Dynamo 1.6.1, dynamo/prometheus_names.py
(trtllm_additional) and its mock engines."""


VERSIONS = MappingProxyType(
    {
        "dynamo_v0": "TensorRT-LLM 1.0.0rc0 to rc3",
        "dynamo_v04": "TensorRT-LLM 1.0",
        "dynamo_v07": "TensorRT-LLM 1.2.0rc2 to 1.3.0rc3",
        "dynamo_v1": "TensorRT-LLM 1.3.0rc5 to rc29",
    }
)
"""Versions of TensorRT-LLM by generation of Dynamo. Source: Dynamo, support matrix of 0.9.1, 1.0.0, 1.1.1 and
1.3.0 (docs.nvidia.com/dynamo); its recipe for Llama 4 (59d4642) for TensorRT-LLM 1.0."""


def check_trtllm(spec: TrialSpec, *, reads_yaml: bool) -> Iterator[Finding]:
    """Yield every rule of TensorRT-LLM that `spec` breaks; `reads_yaml` is False for mock engines."""
    pools = trtllm_pools(spec)
    yield from check_strategy(spec.stack, spec.split)
    yield from check_generation(spec.stack, pools, reads_yaml=reads_yaml)
    yield from check_transceivers(spec.model, spec.stack, pools)
    yield from check_weights(spec.model, spec.hardware)
    if reads_yaml:
        yield from check_dropped_keys(spec.stack, pools)
    for role, engine in pools:
        yield from check_worker(spec, engine, role)
        yield from check_conflicts(spec.stack, engine, role)
        if reads_yaml:
            yield from check_spelling(spec.stack, engine, role)


@final
class TrtLlm(EngineAdapter):
    """Adapt TensorRT-LLM."""

    computes_tokens = True
    has_file = True
    rank_launcher = RANK_LAUNCHER
    launch_variables = frozenset({"ENGINE_CONFIG", "TLLM_SPAWN_PROXY_PROCESS_IPC_ADDR"})
    metrics = METRICS
    package = ENGINE_PACKAGE
    versions = VERSIONS
    signals = EngineSignals(
        failure_rules=FAILURE_RULES,
        requests=REQUESTS,
        in_flight=IN_FLIGHT,
        frontend_in_flight=FRONTEND_IN_FLIGHT,
    )
    overridable = OVERRIDABLE | {"TRTLLM_USE_UCX_KVCACHE"}

    @property
    def image_steps(self) -> str:
        """Return the steps that build an image of Dynamo and TensorRT-LLM of mid 2025."""
        return Path(__file__).with_name("build_image.sh").read_text(encoding="utf-8")

    def check(self, spec: TrialSpec) -> Iterable[Finding]:
        """Yield every rule of TensorRT-LLM that `spec` breaks."""
        return check_trtllm(spec, reads_yaml=True)

    def kv_capacity_tokens(self, model: Model, hardware: Hardware, engine: Engine) -> int:
        """Return the tokens of KV cache that one worker holds."""
        return trtllm_kv_capacity_tokens(model, hardware, trtllm_settings(engine))

    def read_steps(self, lines: Iterable[str]) -> Iterable[LoggedStep]:
        """Yield the steps that print_iter_log prints."""
        return read_trtllm_steps(lines)

    def recommend(self, spec: TrialSpec, remedy: Remedy) -> Iterable[Recommendation]:
        """Yield the settings of TensorRT-LLM that apply `remedy`."""
        return trtllm_recommendations(spec, remedy)

    def environment(self, spec: TrialSpec, facts: ClusterFacts) -> dict[str, str]:
        """Return the variables that frontend and workers share."""
        return trtllm_environment(spec, facts)

    def services(self, spec: TrialSpec, facts: ClusterFacts) -> tuple[Process, ...]:
        """Return what Dynamo needs before it starts."""
        return dynamo_services(spec)

    def frontends(self, spec: TrialSpec, facts: ClusterFacts) -> tuple[Process, ...]:
        """Return Dynamo's OpenAI endpoints."""
        return dynamo_frontends(spec, facts, self.environment(spec, facts))

    def worker(self, spec: TrialSpec, facts: ClusterFacts, placed: WorkerPlacement) -> Process:
        """Return one worker, an MPI job with a rank on each of its GPUs."""
        return trtllm_worker(spec, facts, placed)

    def start_gap_s(self, spec: TrialSpec) -> float:
        """Return PORT_CHOICE_S before Dynamo 1.0, where a worker may look for a free port of its own."""
        return 0.0 if spec.stack.generation == "dynamo_v1" else PORT_CHOICE_S

    def components(self, spec: TrialSpec) -> Mapping[Role, str]:
        """Return the names under which workers register: by turn in dynamo_v0, by role in dynamo_v1.

        Source: Dynamo, components/backends/trtllm/src/dynamo/trtllm/utils/trtllm_utils.py (mid 2025);
        components/src/dynamo/trtllm/args.py (1.x; decode was tensorrt_llm before it was backend).
        """
        if spec.stack.dynamo == "v1":
            return {"prefill": "prefill", **dict.fromkeys(GENERATES_ANSWERS, "backend,tensorrt_llm")}
        first, second = ROLES if spec.split.disaggregation_strategy == "prefill_first" else ROLES[::-1]
        return {first: "tensorrt_llm", second: "tensorrt_llm_next", "aggregated": "tensorrt_llm"}

    def files(self, spec: TrialSpec) -> Mapping[str, str]:
        """Return the YAML of each pool."""
        return {
            f"{role}.yaml": engine_yaml(engine, yaml_generation(spec.stack))
            for role, engine in trtllm_pools(spec)
        }

    def validators(self, spec: TrialSpec, facts: ClusterFacts) -> Validators:
        """Return Dynamo's parsers and TensorRT-LLM's class of arguments."""
        return trtllm_validators(spec, facts)

    def keys_of_words(self, role: Role, words: Sequence[str]) -> dict[str, Any]:
        """Return the keys that options of Dynamo's worker stand for."""
        return keys_of_words(words)

    def keys_of_worker(self, files: Mapping[str, str], worker: Process) -> dict[str, Any]:
        """Return the keys of the YAML of a worker's pool."""
        keys: dict[str, Any] = yaml.safe_load(files[f"{worker.role}.yaml"])
        return keys

    def misshapen_key(self, keys: Mapping[str, Any]) -> tuple[KeyPlace, Shape] | None:
        """Return a key that is no number, text or group where one is needed."""
        return misshapen_key(keys, READ_SHAPES)

    def generation_of_keys(self, keys: Mapping[str, Any]) -> str:
        """Return flat or nested."""
        return generation_of_keys(keys)

    def settings_of_keys(
        self, role: Role, keys: Mapping[str, Any], context_tokens: int | None
    ) -> dict[str, Any]:
        """Return the settings that a YAML of either generation holds."""
        return settings_of_keys(role, keys, context_tokens)

    def comparable_keys(self, role: Role, keys: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keys with the sizes of CUDA graphs in order."""
        return comparable_keys(keys)

    def longest_prompt_of_keys(self, keys: Mapping[str, Any]) -> float:
        """Return the most tokens of a prompt."""
        return longest_prompt_of_keys(keys)

    def gpus_of_keys(self, keys: Mapping[str, Any]) -> int:
        """Return the GPUs of a worker."""
        return gpus_of_keys(keys)
