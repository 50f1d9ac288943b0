"""Adapt vLLM, as a worker of Dynamo 1.x, to the protocol of engines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, final

from tune.engines.base import EngineAdapter, LoggedStep, Remedy
from tune.engines.dynamo.counters import VLLM_METRICS
from tune.engines.dynamo.dynamo_environment import OVERRIDABLE
from tune.engines.dynamo.dynamo_frontends import FRONTEND_PARSERS, PACKAGE
from tune.engines.dynamo_vllm.argument_reading import (
    comparable_arguments,
    gpus_of_arguments,
    keys_of_arguments,
    longest_prompt_of_arguments,
    read_shapes,
    settings_of_arguments,
)
from tune.engines.dynamo_vllm.iteration_log import read_vllm_steps
from tune.engines.dynamo_vllm.vllm_memory import vllm_kv_capacity_tokens
from tune.engines.dynamo_vllm.vllm_pools import vllm_pools, vllm_settings
from tune.engines.dynamo_vllm.vllm_processes import (
    MODEL_FOLDER,
    vllm_environment,
    vllm_frontends,
    vllm_services,
    vllm_worker,
)
from tune.engines.dynamo_vllm.vllm_remedies import vllm_recommendations
from tune.engines.dynamo_vllm.vllm_rules import check_vllm
from tune.engines.dynamo_vllm.worker_signals import SIGNALS
from tune.engines.key_shapes import KeyPlace, Shape, misshapen_key
from tune.engines.model_folder import model_files
from tune.manifest.argument_check import Validators
from tune.manifest.process import Process
from tune.records.outcome import Recommendation
from tune.spec.cluster import ClusterFacts
from tune.spec.engine import Engine
from tune.spec.findings import Finding
from tune.spec.hardware import Hardware
from tune.spec.model import Model
from tune.spec.split import GENERATES_ANSWERS, Role, WorkerPlacement
from tune.spec.trial import TrialSpec


@final
class DynamoVllm(EngineAdapter):
    """Adapt vLLM."""

    computes_tokens = True
    has_file = False
    rank_launcher = None
    launch_variables = frozenset({"VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_NIXL_SIDE_CHANNEL_PORT"})
    needs_scratch = True
    metrics = VLLM_METRICS
    package = "vllm"
    versions = MappingProxyType({"dynamo_v1": "vLLM 0.23"})
    signals = SIGNALS
    overridable = OVERRIDABLE | {"VLLM_NO_USAGE_STATS", "HF_HUB_OFFLINE"}

    def check(self, spec: TrialSpec) -> Iterable[Finding]:
        """Yield every rule of vLLM that `spec` breaks."""
        return check_vllm(spec)

    def kv_capacity_tokens(self, model: Model, hardware: Hardware, engine: Engine) -> int:
        """Return the tokens of KV cache that one worker holds."""
        return vllm_kv_capacity_tokens(model, hardware, vllm_settings(engine))

    def read_steps(self, lines: Iterable[str]) -> Iterable[LoggedStep]:
        """Yield the steps that enable_logging_iteration_details prints."""
        return read_vllm_steps(lines)

    def recommend(self, spec: TrialSpec, remedy: Remedy) -> Iterable[Recommendation]:
        """Yield the settings of vLLM that apply `remedy`."""
        return vllm_recommendations(spec, remedy)

    def environment(self, spec: TrialSpec, facts: ClusterFacts) -> dict[str, str]:
        """Return the variables that frontend and workers share."""
        return vllm_environment(spec)

    def services(self, spec: TrialSpec, facts: ClusterFacts) -> tuple[Process, ...]:
        """Return etcd where workers are on several nodes."""
        return vllm_services(spec)

    def frontends(self, spec: TrialSpec, facts: ClusterFacts) -> tuple[Process, ...]:
        """Return Dynamo's OpenAI endpoints."""
        return vllm_frontends(spec, facts)

    def worker(self, spec: TrialSpec, facts: ClusterFacts, placed: WorkerPlacement) -> Process:
        """Return one worker."""
        return vllm_worker(spec, facts, placed)

    def components(self, spec: TrialSpec) -> Mapping[Role, str]:
        """Return the names under which workers register. Source: Dynamo 1.3.1, dynamo/vllm/args.py."""
        return {"prefill": "prefill", **dict.fromkeys(GENERATES_ANSWERS, "backend")}

    def files(self, spec: TrialSpec) -> Mapping[str, str]:
        """Return the model without weights, where a pool makes random ones."""
        if all(engine.load_format != "dummy" for _, engine in vllm_pools(spec)):
            return {}
        return {f"{MODEL_FOLDER}/{name}": text for name, text in model_files(spec.model).items()}

    def validators(self, spec: TrialSpec, facts: ClusterFacts) -> Validators:
        """Return Dynamo's parsers, of which that of the workers hands the rest to vLLM's own."""
        parsers: dict[str, tuple[str, ...]] = {"dynamo.vllm": ("dynamo.vllm.args:parse_args",)}
        return Validators(FRONTEND_PARSERS | parsers, packages=(PACKAGE, self.package))

    def keys_of_words(self, role: Role, words: Sequence[str]) -> dict[str, Any]:
        """Return the arguments of vLLM among `words`, by their names."""
        return keys_of_arguments(role, words)

    def keys_of_worker(self, files: Mapping[str, str], worker: Process) -> dict[str, Any]:
        """Return the arguments of a worker."""
        return keys_of_arguments(worker.role, worker.argv)

    def misshapen_key(self, keys: Mapping[str, Any]) -> tuple[KeyPlace, Shape] | None:
        """Return an argument that is no number where one is needed, under its name in `keys`."""
        return misshapen_key(keys, read_shapes(keys))

    def generation_of_keys(self, keys: Mapping[str, Any]) -> str:
        """Return the only one."""
        return "arguments"

    def settings_of_keys(
        self, role: Role, keys: Mapping[str, Any], context_tokens: int | None
    ) -> dict[str, Any]:
        """Return the settings that arguments state."""
        return settings_of_arguments(role, keys, context_tokens)

    def comparable_keys(self, role: Role, keys: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments under one spelling."""
        return comparable_arguments(role, keys)

    def longest_prompt_of_keys(self, keys: Mapping[str, Any]) -> float:
        """Return the most tokens of a prompt."""
        return longest_prompt_of_arguments(keys)

    def gpus_of_keys(self, keys: Mapping[str, Any]) -> int:
        """Return the GPUs of a worker."""
        return gpus_of_arguments(keys)
